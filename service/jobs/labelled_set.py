"""Which video has which label: from a CSV file, a folder for each class, or a list."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from service.errors import ApiError
from service.jobs.unpack import SetFile
from service.strict_json import strict_json

_COLUMNS: Final = ("path", "label")


@dataclass(frozen=True)
class LabelledFile:
    """A video file of a set; `name` is for people, `path` is where it lies."""

    name: str
    path: Path
    label: str


def read_set(files: Sequence[SetFile], *, max_list_bytes: int, param: str) -> list[LabelledFile]:
    """Return the labelled videos of an archive or folder, in the order of its list.

    With one ``.csv`` file, its columns ``path`` (relative to it) and ``label`` count, others are
    passed over, and so are files that it does not name. Without, the label of a file is the name
    of the folder that it lies in, as it stands.

    Raises:
        ApiError: ``invalid_labelled_set`` with what is wrong and where.
    """
    lists = [file for file in files if file.name.lower().endswith(".csv")]
    if len(lists) > 1:
        raise _invalid("There is more than one CSV file.", param, actual=lists[1].name)
    if lists:
        return _by_list(lists[0], files, max_list_bytes=max_list_bytes, param=param)
    found = [
        LabelledFile(file.name, file.path, PurePosixPath(file.name).parent.name) for file in files
    ]
    loose = [video.name for video in found if not video.label]
    if loose:
        raise _invalid(
            "Without a CSV file with the columns path and label, every video lies in a folder"
            " that is called as its class.",
            param,
            actual=loose[0],
        )
    return sorted(found, key=lambda video: video.name)


def pair(files: Sequence[SetFile], labels: str) -> list[LabelledFile]:
    """Return uploaded videos with their labels.

    Args:
        files: in the order of the form; `name` is the file name that came with the part.
        labels: a JSON array in that order, a JSON object by file name, or CSV by file name.

    Raises:
        ApiError: ``malformed_json``, or ``invalid_labelled_set`` with what is wrong.
    """
    text = labels.strip()
    if text.startswith("["):
        values = _json(text)
        if not all(isinstance(value, str) for value in values):
            raise _invalid("Labels are texts.", "labels")
        if len(values) != len(files):
            raise _invalid(
                f"{len(values)} labels for {len(files)} videos.",
                "labels",
                limit=len(files),
                actual=len(values),
            )
        return [LabelledFile(f.name, f.path, v) for f, v in zip(files, values, strict=True)]
    if text.startswith("{"):
        rows = [(name, label, "") for name, label in _json(text).items()]
        if not all(isinstance(label, str) for _, label, _ in rows):
            raise _invalid("Labels are texts.", "labels")
    else:
        rows = _rows(labels, param="labels")
    return _match(rows, _by_name(files, param="video"), param="labels")


def _by_list(
    listed: SetFile, files: Sequence[SetFile], *, max_list_bytes: int, param: str
) -> list[LabelledFile]:
    with listed.path.open("rb") as stream:
        raw = stream.read(max_list_bytes + 1)
    if len(raw) > max_list_bytes:
        raise _invalid(
            f"{listed.name} is larger than {max_list_bytes} bytes.", param, limit=max_list_bytes
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _invalid(f"{listed.name} is not UTF-8.", param, actual=listed.name) from None
    folder = PurePosixPath(listed.name).parent
    there = {
        str(PurePosixPath(file.name).relative_to(folder)): file
        for file in files
        if PurePosixPath(file.name).is_relative_to(folder) and file is not listed
    }
    return _match(_rows(text, param=f"{param}: {listed.name}"), there, param=param)


def _rows(text: str, *, param: str) -> list[tuple[str, str, str]]:
    """Return path, label and line of each row."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in _COLUMNS if columns.count(name) != 1]
        if missing:
            raise _invalid(
                "The first line must name the columns path and label, each once.",
                param,
                limit=",".join(_COLUMNS),
                actual=",".join(columns)[:100],
            )
        reader.fieldnames = columns
        return [
            (row["path"] or "", row["label"] or "", f", line {reader.line_num}") for row in reader
        ]
    except csv.Error as error:
        raise _invalid(f"Line {reader.line_num} is not CSV.", param) from error


def _match(
    rows: Sequence[tuple[str, str, str]], there: Mapping[str, SetFile], *, param: str
) -> list[LabelledFile]:
    found: list[LabelledFile] = []
    seen: set[str] = set()
    for path, label, where in rows:
        name = path.strip().replace("\\", "/").removeprefix("./")
        if name not in there:
            raise _invalid(f"There is no such file{where}.", param, actual=path)
        if name in seen:
            raise _invalid(f"A file is named twice{where}.", param, actual=path)
        if not label.strip():
            raise _invalid(f"A label is empty{where}.", param, actual=path)
        seen.add(name)
        found.append(LabelledFile(there[name].name, there[name].path, label))
    return found


def _by_name(files: Sequence[SetFile], *, param: str) -> dict[str, SetFile]:
    named = {file.name: file for file in files}
    if len(named) != len(files):
        raise _invalid(
            "Two videos have the same file name; send the labels as a JSON array.", param
        )
    return named


def _json(text: str) -> Any:
    try:
        return strict_json(text)
    except ApiError as error:
        raise ApiError(error.code, error.detail, param="labels") from None


def _invalid(
    detail: str, param: str, *, limit: float | str | None = None, actual: object = None
) -> ApiError:
    return ApiError("invalid_labelled_set", detail, param=param, limit=limit, actual=actual)
