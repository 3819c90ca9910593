"""From what a user names, files and a protocol, to what is measured."""

from dataclasses import dataclass
from pathlib import Path

from training.data.annotations import LabelledVideo, read_video_list
from training.evaluate.class_lists import read_class_list
from training.evaluate.official_splits import read_official_splits
from training.evaluate.pairs import read_pairs
from training.evaluate.plan import Plan, Spelling, plan_classification, plan_retrieval
from training.evaluate.protocols import Protocol, ProtocolError, find


@dataclass(frozen=True, kw_only=True)
class EvaluationList:
    """A set to measure on; a table of a configuration, or the arguments of `evaluate`.

    videos: lists of videos, or a folder with a folder for each class; as many as the protocol
    wants. protocol, dataset: see `python -m training protocols`. classes: files with names of
    classes. splits: the folder of official split files. captions, only: see
    `training.evaluate.pairs`. spelling: whose spelling of labels the text encoder is shown.
    """

    videos: tuple[Path, ...]
    protocol: str = "folder"
    dataset: str | None = None
    classes: tuple[Path, ...] = ()
    splits: Path | None = None
    captions: Path | None = None
    only: Path | None = None
    spelling: Spelling = "protocol"


def open_plan(given: EvaluationList) -> Plan:
    """Read the files and apply the protocol.

    Raises ProtocolError when the protocol needs other files, ClassListError when names do not fit,
    VideoListError or PairsError when a file cannot be used.
    """
    protocol = find(given.protocol, given.dataset)
    if protocol.task == "retrieval":
        _refuse(protocol, classes=given.classes, splits=given.splits)
        if len(given.videos) != 1:
            raise ProtocolError(f"{protocol.title}: one list or folder of videos is wanted")
        pairs = read_pairs(given.videos[0], captions=given.captions, only=given.only)
        return plan_retrieval(protocol, pairs)
    _refuse(protocol, captions=given.captions, only=given.only)
    class_files = [read_class_list(path) for path in given.classes]
    lists = [read_video_list(path) for path in given.videos]
    if given.splits is not None:
        if len(given.videos) != 1:
            raise ProtocolError(f"--splits {given.splits}: with one folder of all videos")
        lists = _split(protocol, given.videos[0], given.splits)
    return plan_classification(protocol, lists, class_files=class_files, spelling=given.spelling)


def _split(protocol: Protocol, videos: Path, splits: Path) -> list[list[LabelledVideo]]:
    official = read_official_splits(protocol.dataset, videos=videos, splits=splits)
    if protocol.name == "EP3":
        return [list(test) for test in official.tests]
    if protocol.name == "few-shot":
        return [list(official.tests[0])]
    if protocol.name in ("EP1", "EP2"):
        return [list(official.used)]
    raise ProtocolError(f"{protocol.title}: has no use for --splits {splits}")


def _refuse(protocol: Protocol, **arguments: object) -> None:
    for name, value in arguments.items():
        if value not in (None, ()):
            raise ProtocolError(f"{protocol.title}: has no use for {name}")
