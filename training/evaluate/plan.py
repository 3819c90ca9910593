"""A protocol applied to a user's files: which videos, among which labels, with which sentences."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.annotations import LabelledVideo, classes_of
from training.evaluate.class_lists import match, others_than
from training.evaluate.pairs import Pair
from training.evaluate.protocols import Part, Protocol, ProtocolError

#: Which spelling the text encoder is shown: the protocol's, or that of the list of videos, as
#: ViFi-CLIP and Text4Vis keep UCF-101's "ApplyEyeMakeup".
Spelling = Literal["protocol", "list"]


@dataclass(frozen=True, eq=False)
class ClassPart:
    """Videos to classify. labels: int64 (n,), positions in `classes`, which are in words."""

    name: str
    videos: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    def only(self, videos: Iterable[Path]) -> "ClassPart":
        """The part without what is not among these videos, such as what cannot be decoded."""
        keep = _among(self.videos, videos)
        chosen = tuple(path for path, kept in zip(self.videos, keep, strict=True) if kept)
        return ClassPart(self.name, chosen, self.classes, self.labels[keep])


@dataclass(frozen=True, eq=False)
class PairPart:
    """Videos and the sentences that describe them. video_of: int64, one position for each text."""

    name: str
    videos: tuple[Path, ...]
    texts: tuple[str, ...]
    video_of: NDArray[np.int64]

    def only(self, videos: Iterable[Path]) -> "PairPart":
        """The part without what is not among these videos, and without its sentences."""
        keep = _among(self.videos, videos)
        chosen = tuple(path for path, kept in zip(self.videos, keep, strict=True) if kept)
        own = keep[self.video_of]
        texts = tuple(text for text, kept in zip(self.texts, own, strict=True) if kept)
        return PairPart(self.name, chosen, texts, (np.cumsum(keep) - 1)[self.video_of[own]])


@dataclass(frozen=True, eq=False)
class Plan:
    """What is going to be measured. notes: what differs from the protocol, in lines."""

    protocol: Protocol
    parts: tuple[ClassPart, ...] | tuple[PairPart, ...]
    notes: tuple[str, ...] = ()
    spelling: Spelling = "protocol"
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", _digest(self.parts))


def plan_classification(
    protocol: Protocol,
    lists: Sequence[Sequence[LabelledVideo]],
    *,
    class_files: Sequence[tuple[str, ...]] = (),
    spelling: Spelling = "protocol",
) -> Plan:
    """Match the labels of the lists with the protocol's classes, by name.

    lists: one for all parts, or one for each. class_files: lists of classes that the user brought.
    Raises ProtocolError for a wrong number of either, ClassListError for a label that is no class
    of the protocol.
    """
    parts = protocol.parts(class_files)
    if len(lists) not in protocol.lists:
        wanted = " or ".join(map(str, protocol.lists))
        raise ProtocolError(
            f"{protocol.title}: {len(lists)} lists of videos, {wanted} wanted: {protocol.needs}"
        )
    known = tuple(dict.fromkeys(name for part in parts for name in part.classes or ()))
    shared = len(lists) == 1
    planned, notes = [], []
    for i, part in enumerate(parts):
        videos = lists[0 if shared else i]
        own = part.classes if part.classes is not None else classes_of(videos)
        # What belongs to another part is left out; what belongs to none is an error.
        candidates = known if known and shared else own
        labels = {video.class_name for video in videos}
        if protocol.leaves_others_out:
            others = others_than(labels, candidates)
            labels -= others
            if others and (i == 0 or not shared):
                notes.append(f"left out: {len(others)} other labels, such as {min(others)!r}")
        named = (
            match(labels, candidates, where=protocol.title)
            if part.classes is not None
            else {name: name for name in own}
        )
        chosen = [v for v in videos if named.get(v.class_name) in set(own)]
        notes += _notes(part, [named[v.class_name] for v in chosen], own)
        place = {name: position for position, name in enumerate(own)}
        shown = list(own)
        if spelling == "list":
            for given, name in named.items():
                if name in place:
                    shown[place[name]] = given
        planned.append(
            ClassPart(
                name=part.name,
                videos=tuple(v.path for v in chosen),
                classes=tuple(shown),
                labels=np.array([place[named[v.class_name]] for v in chosen], np.int64),
            )
        )
    return Plan(protocol, tuple(planned), tuple(notes), spelling)


def plan_retrieval(protocol: Protocol, pairs: Sequence[Pair]) -> Plan:
    """Pairs of a video and a sentence; a video may come with several sentences."""
    (part,) = protocol.parts()
    videos = tuple(dict.fromkeys(path for path, _ in pairs))
    place = {path: position for position, path in enumerate(videos)}
    planned = PairPart(
        name=part.name,
        videos=videos,
        texts=tuple(text for _, text in pairs),
        video_of=np.array([place[path] for path, _ in pairs], np.int64),
    )
    return Plan(protocol, (planned,), tuple(_count_note(part, len(videos))))


def _among(videos: Sequence[Path], there: Iterable[Path]) -> NDArray[np.bool_]:
    known = set(there)
    return np.array([path in known for path in videos], dtype=np.bool_)


def _notes(part: Part, labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    if not labels:
        raise ProtocolError(f"{part.name}: the list has no video of its {len(classes)} classes")
    empty = [name for name in classes if name not in set(labels)]
    notes = _count_note(part, len(labels))
    if part.class_count not in (None, len(classes)):
        notes.append(f"{part.name}: {len(classes)} classes, the protocol has {part.class_count}")
    if empty and part.classes is not None:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        notes.append(f"{part.name}: no video of {empty[0]!r}{more}, {len(classes)} classes")
    return notes


def _count_note(part: Part, count: int) -> list[str]:
    if part.videos is None or part.videos[0] <= count <= part.videos[1]:
        return []
    low, high = part.videos
    expected = f"{low}" if low == high else f"{low} to {high}"
    return [f"{part.name}: {count} videos, the papers have {expected}"]


def _digest(parts: Sequence[ClassPart | PairPart]) -> str:
    """sha256 over what is asked of which file: equal on machines that keep videos elsewhere."""
    lines = []
    for part in parts:
        lines.append(f"part {part.name}")
        if isinstance(part, ClassPart):
            lines += [f"class {name}" for name in part.classes]
            pairs = zip(part.videos, (part.classes[i] for i in part.labels), strict=True)
        else:
            pairs = zip((part.videos[i] for i in part.video_of), part.texts, strict=True)
        lines += sorted(f"{path.name}\t{text}" for path, text in pairs)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
