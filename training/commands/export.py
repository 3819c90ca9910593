"""`python -m training export`."""

import argparse
from pathlib import Path

NAME = "export"
HELP = "write the graphs of an architecture, no weights"
DESCRIPTION = (
    "Writes ONNX and TorchScript graphs whose weights are random: the form alone, to see whether a "
    "runtime takes them and how fast it is before anything is trained. `publish` exports a run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", help="open_clip's name, e.g. ViT-B-16-quickgelu")
    parser.add_argument("folder", type=Path, help="where the graphs go; made if it is not there")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    parser.add_argument(
        "--temporal",
        choices=("neighbour", "none"),
        default="neighbour",
        help="whether frames see their neighbours (neighbour)",
    )
    parser.add_argument(
        "--temporal-head",
        choices=("none", "t-trans", "token-t1d", "t1d"),
        default="none",
        help="of Text4Vis (none)",
    )
    parser.add_argument(
        "--prompts",
        type=int,
        nargs=4,
        metavar=("VISION", "DEPTH", "TEXT", "DEPTH"),
        help="of ViFi-CLIP: how many in each tower, and in how many of its layers",
    )


def run(parsed: argparse.Namespace) -> int:
    """Write the graphs of an architecture."""
    from training.export import export
    from training.models.network import build, describe

    architecture = describe(parsed.model, temporal=parsed.temporal)
    architecture["temporal_head"] = parsed.temporal_head
    if parsed.prompts is not None:
        keys = ("vision", "vision_depth", "text", "text_depth")
        architecture["prompts"] = dict(zip(keys, parsed.prompts, strict=True))
    network = build(architecture)
    parsed.folder.mkdir(parents=True, exist_ok=True)
    export(network, parsed.folder, frames_per_clip=parsed.frames)
    for path in sorted(parsed.folder.glob("*_encoder.*")):
        print(f"{path}  {path.stat().st_size} bytes")
    return 0
