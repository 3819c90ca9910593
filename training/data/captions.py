"""Captions from a file, joined with videos by name (Open-VCLIP++, whose own file was never shown).

Formats: what `torch.save` writes of a dict, JSON, JSON Lines, or CSV with ``path,caption``. In a
dict the keys are names of videos, the values one text or several. A name is a path with or without
folders and suffix, or the id in ``id_000010_000020``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.data.annotations import LabelledVideo
from training.data.list_formats import VideoListError, read_json, read_rows
from training.data.video_files import stem_of
from training.errors import Refusal

_KINETICS = re.compile(r"(.+)_\d{6}_\d{6}")
_EXAMPLES = 3


class CaptionError(Refusal):
    """Captions that cannot be used; names the file and what is wrong in it."""


@dataclass(frozen=True)
class CaptionedVideos:
    """videos: all of them, in their order, with the captions that were found. without: files that
    have none. unused: names in the file of captions that belong to no video.
    """

    videos: tuple[LabelledVideo, ...]
    without: tuple[Path, ...]
    unused: tuple[str, ...]

    def report(self) -> str:
        """How many matched and how many did not, with examples."""
        found = len(self.videos) - len(self.without)
        text = f"captions: {found} of {len(self.videos)} videos have one"
        if self.without:
            text += f"; without: {_examples(path.name for path in self.without)}"
        if self.unused:
            text += f"; {len(self.unused)} captions belong to none: {_examples(self.unused)}"
        return text


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Name of a video -> its captions, as the file has them.

    Files that end in .pt, .pth or .bin are read by torch, weights only: nothing in them is run.
    Raises CaptionError.
    """
    suffix = path.suffix.lower()
    if suffix in (".pt", ".pth", ".bin"):
        return _of_mapping(path, _load(path))
    try:
        document = read_json(path) if suffix == ".json" else None
        if isinstance(document, dict):
            return _of_mapping(path, document)
        rows = read_rows(path, numbered=True)
    except VideoListError as error:
        raise CaptionError(str(error)) from error
    found: dict[str, list[str]] = {}
    for row in rows:
        if not row.captions:
            raise CaptionError(f"{path}, line {row.line}: {row.files[0]!r} has no caption")
        found.setdefault(row.files[0], []).extend(row.captions)
    return _of_mapping(path, found)


def add_captions(
    videos: Sequence[LabelledVideo], captions: Mapping[str, tuple[str, ...]], *, where: Path
) -> CaptionedVideos:
    """Give each video the captions of its name.

    Folders and suffixes may be missing on either side; where both have folders they are compared,
    and only a name that is there once on both sides may lie in others. A video that has a caption
    in its list gets the one found, or keeps its own. where: the file, for errors. Raises
    CaptionError when no caption fits any video, and when one fits several videos, or several fit
    one, so that it cannot be told which is meant.
    """
    names = {name: _parts(name) for name in captions}
    by_stem: dict[str, list[str]] = {}
    for each, parts in names.items():
        by_stem.setdefault(parts[-1], []).append(each)
    files = Counter(_parts(path.as_posix())[-1] for path in {video.path for video in videos})
    used: dict[str, Path] = {}
    joined: list[LabelledVideo] = []
    without: list[Path] = []
    for video in videos:
        name = _name_of(video.path, by_stem, names, files, where=where)
        if name is None:
            if not video.captions:
                without.append(video.path)
            joined.append(video)
            continue
        other = used.setdefault(name, video.path)
        if other != video.path:
            raise CaptionError(
                f"{where}: {name!r} fits {other} and {video.path}; it needs their folders"
            )
        first, *more = captions[name]
        joined.append(replace(video, caption=first, more_captions=tuple(more)))
    if not used:
        raise CaptionError(
            f"{where}: none of {len(captions)} captions belongs to one of {len(videos)} videos: "
            f"{_examples(captions)} there, {_examples(v.path.name for v in videos)} here"
        )
    unused = tuple(name for name in captions if name not in used)
    return CaptionedVideos(videos=tuple(joined), without=tuple(without), unused=unused)


def _name_of(
    path: Path,
    by_stem: Mapping[str, Sequence[str]],
    names: Mapping[str, tuple[str, ...]],
    files: Mapping[str, int],
    *,
    where: Path,
) -> str | None:
    own = _parts(path.as_posix())
    is_alone = files[own[-1]] == 1
    known = by_stem.get(own[-1], ())
    clip = _KINETICS.fullmatch(own[-1])
    if not known and clip:
        own = (*own[:-1], clip[1])
        known = by_stem.get(clip[1], ())
    fitting = [name for name in known if _agree(own, names[name])]
    if not fitting:
        return known[0] if len(known) == 1 and is_alone else None
    most = max(len(names[name]) for name in fitting)
    best = [name for name in fitting if len(names[name]) == most]
    if len(best) > 1:
        raise CaptionError(f"{where}: {best[0]!r} and {best[1]!r} both fit {path}")
    return best[0]


def _agree(own: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(own), len(other))
    return own[-shared:] == other[-shared:]


def _parts(name: str) -> tuple[str, ...]:
    parts = [part for part in stem_of(name).replace("\\", "/").split("/") if part not in ("", ".")]
    return tuple(parts) or (name,)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CaptionError(f"{path}: {error.strerror}") from error
    except Exception as error:  # torch.load raises anything, pickle's errors included
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CaptionError(f"{path}: not what torch.save writes of a dict: {reason}") from error


def _of_mapping(path: Path, document: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(document, dict) or not document:
        raise CaptionError(f"{path}: expected a dict with names of videos and their captions")
    captions = {}
    for name, texts in document.items():
        texts = (texts,) if isinstance(texts, str) else texts
        good = isinstance(name, str) and isinstance(texts, (list, tuple)) and len(texts) > 0
        if not good or not all(isinstance(text, str) and text.strip() for text in texts):
            raise CaptionError(f"{path}: {name!r}: expected a name, and a text or several")
        captions[name] = tuple(text.strip() for text in texts)
    return captions


def _examples(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    more = ", ..." if len(texts) > _EXAMPLES else ""
    return ", ".join(repr(text) for text in texts[:_EXAMPLES]) + more
