"""`python -m training protocols`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.evaluate.protocols import Protocol

NAME = "protocols"
HELP = "list the evaluation protocols, or show the classes of one"
DESCRIPTION = (
    "Without arguments: every protocol with its version, what is measured, and how many videos the "
    "papers have. With a name: its parts and their classes. `evaluate --protocol NAME` measures."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("name", nargs="?", help="such as EP1")
    parser.add_argument("--dataset", help="where a protocol has several, such as ucf101 or hmdb51")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(parsed: argparse.Namespace) -> int:
    """List the protocols, or show one."""
    import json

    from training.evaluate.protocols import PROTOCOLS, find, of_dataset

    if parsed.name is None:
        shown = PROTOCOLS if parsed.dataset is None else of_dataset(parsed.dataset)
        if parsed.json:
            print(json.dumps([_facts(p) for p in shown], indent=1))
            return 0
        for p in shown:
            print(f"{p.title}\n    {p.definition}\n    needs: {p.needs}")
            print(f"    videos: {p.expected_videos()}")
        return 0
    protocol = find(parsed.name, parsed.dataset)
    if parsed.json:
        print(json.dumps(_parts(protocol), ensure_ascii=False))
        return 0
    print(f"{protocol.title}\n    {protocol.definition}\n    needs: {protocol.needs}")
    print(f"    videos: {protocol.expected_videos()}")
    if protocol.class_files[0] == 0:
        for part in protocol.parts():
            names = "all labels of the list" if part.classes is None else ", ".join(part.classes)
            print(f"{part.name}: {names}")
    return 0


def _facts(protocol: "Protocol") -> dict[str, object]:
    return {
        "name": protocol.name,
        "dataset": protocol.dataset,
        "version": protocol.version,
        "task": protocol.task,
        "definition": protocol.definition,
        "needs": protocol.needs,
        "videos": protocol.expected_videos(),
    }


def _parts(protocol: "Protocol") -> dict[str, object]:
    """Its draws, if it has any; else what it is with its parts."""
    parts = protocol.parts() if protocol.class_files[0] == 0 else ()
    if parts and parts[0].name.startswith("draw"):
        return {"draws": [list(part.classes or ()) for part in parts]}
    return _facts(protocol) | {"parts": [{"name": p.name, "classes": p.classes} for p in parts]}
