"""Videos and sentences for retrieval, from lists and from MSR-VTT's own files."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.data.annotations import read_video_list
from training.errors import Refusal

Pair = tuple[Path, str]


class PairsError(Refusal):
    """Sentences that cannot be read, or that name no video; says which file and which entry."""


def read_pairs(
    videos: Path, *, captions: Path | None = None, only: Path | None = None
) -> list[Pair]:
    """Pairs of a video file and a sentence, in the order of the file that holds the sentences.

    videos: a list of videos with captions, see `training.data.annotations`; or, with `captions`, a
    folder whose files are named by video id. captions: a CSV with `video_id` and `sentence`
    (MSRVTT_JSFUSION_test.csv), or JSON with a list `sentences` of `video_id` and `caption`
    (MSR-VTT's own) or `annotations` of `image_id` and `caption` (MSR_VTT.json); of JSON the first
    sentence of each video is taken. only: a file with video ids, one a line; the others are left
    out. Raises PairsError.
    """
    if captions is None:
        if only is not None:
            raise PairsError(f"--only {only}: needs --captions")
        listed = read_video_list(videos, labelled=False)
        silent = [video.path for video in listed if not video.captions]
        if silent:
            raise PairsError(f"{videos}: {silent[0].name} has no caption, and all need one")
        pairs = [(video.path, text) for video in listed for text in video.captions]
    else:
        read = _first_sentences if captions.suffix == ".json" else _rows
        sentences = read(captions)
        if only is not None:
            wanted = _text(only).split()
            found = dict(sentences)
            missing = [name for name in wanted if name not in found]
            if missing:
                raise PairsError(f"{captions}: no sentence for {missing[0]!r}, which {only} names")
            sentences = [(name, found[name]) for name in wanted]
        files = _by_stem(videos)
        lost = [name for name, _ in sentences if name not in files]
        if lost:
            raise PairsError(f"{videos}: {len(lost)} videos are missing, such as {lost[0]!r}")
        pairs = [(files[name], text) for name, text in sentences]
    if not pairs:
        raise PairsError(f"{captions or videos}: holds no sentences")
    return pairs


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairsError(f"{folder}: with --captions, a folder of videos named by their ids")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}


def _rows(path: Path) -> list[tuple[str, str]]:
    name, sentence = "video_id", "sentence"
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    missing = {name, sentence} - set(reader.fieldnames or ())
    if missing:
        raise PairsError(f"{path}: the column {sorted(missing)[0]!r} is missing")
    rows = []
    for row in reader:
        if not row[name] or not row[sentence]:
            raise PairsError(f"{path}, line {reader.line_num}: {name} or {sentence} is empty")
        rows.append((row[name], row[sentence]))
    return rows


def _first_sentences(path: Path) -> list[tuple[str, str]]:
    try:
        document = json.loads(_text(path))
    except ValueError as error:
        raise PairsError(f"{path}: not JSON: {error}") from error
    for entries, name in (("sentences", "video_id"), ("annotations", "image_id")):
        if isinstance(document, dict) and isinstance(document.get(entries), list):
            return _first(document[entries], name, path=path)
    raise PairsError(f"{path}: neither a list 'sentences' nor a list 'annotations'")


def _first(entries: Iterable[Any], name: str, *, path: Path) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {name, "caption"} <= set(entry):
            raise PairsError(f"{path}, entry {number}: needs {name!r} and 'caption'")
        found.setdefault(str(entry[name]), str(entry["caption"]))
    return list(found.items())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PairsError(f"{path}: {reason}") from error
