"""The formats that lists of videos come in, each read into the same rows."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import Refusal


class VideoListError(Refusal):
    """A list that cannot be used; names the file, and the line where there is one."""


@dataclass(frozen=True)
class Row:
    """What one line says. line: from 1; of a JSON list, the number of the item.

    files: names that the file may have, the likeliest first. label or label_number, or neither.
    """

    line: int
    files: tuple[str, ...]
    label: str | None = None
    label_number: int | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None


def read_rows(path: Path, *, numbered: bool) -> list[Row]:
    """Read a CSV, JSON, JSON Lines or text file.

    numbered: whether whole numbers in a column of labels are numbers of labels. Without that a list
    that has nothing but numbers there is refused: they would be taken for words.
    Raises VideoListError.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        rows = list(_json(path, text))
    elif suffix in (".jsonl", ".ndjson"):
        rows = list(_json_lines(path, text))
    elif suffix in (".csv", ".tsv"):
        rows = list(_csv(path, text))
    else:
        rows = list(_plain(path, text))
    return _settle_numbers(rows, path, numbered=numbered)


def read_label_names(path: Path) -> dict[int, str]:
    """Names of numbers: CSV ``id,name`` or JSON ``{"0": name}``. Raises VideoListError.

    A file with nothing but names has no numbers, and its order is not to be trusted.
    """
    text = _text(path)
    pairs: list[tuple[int, str, str]] = []
    if path.suffix.lower() == ".json":
        document = _document(path, text)
        if not isinstance(document, dict):
            raise VideoListError(f'{path}: expected an object {{"0": name, ...}}')
        for line, (number, name) in enumerate(document.items(), start=1):
            pairs.append((line, number, name if isinstance(name, str) else ""))
    else:
        for line, row in _csv_rows(path, text, needed=("id", "name")):
            pairs.append((line, row["id"], row["name"]))
    names: dict[int, str] = {}
    for line, number, name in pairs:
        if not number.strip().isdecimal() or not name.strip():
            raise VideoListError(f"{path}, line {line}: {number!r}, {name!r} is no number and name")
        if int(number) in names or name.strip() in names.values():
            raise VideoListError(f"{path}, line {line}: {number}, {name!r} is there twice")
        names[int(number)] = name.strip()
    if not names:
        raise VideoListError(f"{path}: holds no names of labels")
    return names


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises VideoListError."""
    return _document(path, _text(path))


def _settle_numbers(rows: list[Row], path: Path, *, numbered: bool) -> list[Row]:
    """Words that are numbers become numbers if all of them are."""
    words = [row for row in rows if row.label is not None]
    if not words or not all(row.label and row.label.isdecimal() for row in words):
        return rows
    if not numbered:
        raise VideoListError(
            f"{path}, line {words[0].line}: the label {words[0].label} is a number, as all labels "
            "here are; the file that names them is needed (CSV id,name)"
        )
    return [
        row
        if row.label is None
        else Row(row.line, row.files, None, int(row.label), row.captions, row.split)
        for row in rows
    ]


def _csv(path: Path, text: str) -> Iterator[Row]:
    head = next(iter(_cells(path, text)), (0, []))[1]
    columns = {name.strip() for name in head}
    for needed, parse in _CSV_KINDS:
        if set(needed) <= columns:
            for line, row in _csv_rows(path, text, needed=needed):
                yield parse(path, line, row)
            return
    if len(head) == 2 and head[1].strip().isdecimal():
        for line, cells in _cells(path, text):
            if len(cells) != 2 or not cells[0].strip() or not cells[1].strip().isdecimal():
                raise VideoListError(f"{path}, line {line}: expected a path and a label's number")
            yield Row(line, (cells[0].strip(),), label=cells[1].strip())
        return
    kinds = ", or ".join(",".join(needed) for needed, _ in _CSV_KINDS)
    found = ",".join(cell.strip() for cell in head) or "nothing"
    raise VideoListError(
        f"{path}, line 1: the column 'path' is missing; expected {kinds}; found {found[:80]}"
    )


def _path_row(path: Path, line: int, row: Mapping[str, str]) -> Row:
    for column in ("path", "label"):
        if column in row and not row[column]:
            raise VideoListError(f"{path}, line {line}: {column} is empty")
    caption = row.get("caption", "")
    return Row(
        line=line,
        files=(row["path"],),
        label=row.get("label"),
        captions=(caption,) if caption else (),
        split=row.get("split"),
    )


def _kinetics_row(path: Path, line: int, row: Mapping[str, str]) -> Row:
    name = row["youtube_id"]
    try:
        start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
    except (ValueError, OverflowError):
        raise VideoListError(
            f"{path}, line {line}: time_start {row['time_start']!r} or time_end "
            f"{row['time_end']!r} is no number of seconds"
        ) from None
    if not name:
        raise VideoListError(f"{path}, line {line}: youtube_id is empty")
    names = (f"{name}_{start:06d}_{end:06d}", name)
    label = row.get("label") or None
    folders = () if label is None else (label, label.replace(" ", "_"))
    return Row(
        line=line,
        files=(*names, *(f"{folder}/{each}" for folder in folders for each in names)),
        label=label,
        split=row.get("split"),
    )


def _webvid_row(path: Path, line: int, row: Mapping[str, str]) -> Row:
    if not row["videoid"] or not row["name"]:
        raise VideoListError(f"{path}, line {line}: videoid or name is empty")
    folder = row.get("page_dir", "")
    files = (f"{folder}/{row['videoid']}",) if folder else ()
    return Row(line=line, files=(*files, row["videoid"]), captions=(row["name"],))


_CSV_KINDS: tuple[tuple[tuple[str, ...], Callable[[Path, int, Mapping[str, str]], Row]], ...] = (
    (("path",), _path_row),
    (("youtube_id", "time_start", "time_end"), _kinetics_row),
    (("videoid", "name"), _webvid_row),
)


def _cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise VideoListError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def _csv_rows(
    path: Path, text: str, *, needed: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a CSV file with a head, by column."""
    lines = _cells(path, text)
    head = [cell.strip() for cell in next(lines, (0, []))[1]]
    for column in needed:
        if column not in head:
            raise VideoListError(f"{path}, line 1: the column {column!r} is missing")
    for line, cells in lines:
        if len(cells) != len(head):
            raise VideoListError(
                f"{path}, line {line}: {len(cells)} fields, and the head has {len(head)}"
            )
        yield line, {name: cell.strip() for name, cell in zip(head, cells, strict=True)}


def _plain(path: Path, text: str) -> Iterator[Row]:
    """Paths may hold spaces: the last one or two words are numbers in all lines, or none is."""
    lines = list(_lines(text))
    ends = [line.split()[-2:] if len(line.split()) > 1 else [line] for _, line in lines]
    numbers = [len(end) > 1 and end[-1].isdecimal() for end in ends]
    if not any(numbers):
        for number, line in lines:
            yield Row(number, (line,))
        return
    if not all(numbers):
        number, line = lines[numbers.index(False)]
        raise VideoListError(f"{path}, line {number}: {line[:60]!r} has no number of a label")
    counted = all(end[0].isdecimal() for end in ends)  # path, frames, label
    for number, line in lines:
        file, *rest = line.rsplit(maxsplit=2 if counted else 1)
        if len(rest) != (2 if counted else 1):
            raise VideoListError(f"{path}, line {number}: {line[:60]!r} has no path")
        yield Row(number, (file,), label=rest[-1])


def _json(path: Path, text: str) -> Iterator[Row]:
    document = _document(path, text)
    if isinstance(document, dict):
        for number, (file, label) in enumerate(document.items(), start=1):
            yield _item(path, number, {"path": file, "label": label})
    elif isinstance(document, list):
        for number, item in enumerate(document, start=1):
            yield _item(path, number, item)
    else:
        raise VideoListError(f"{path}: expected a list of objects with 'path'")


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in _lines(text):
        yield _item(path, number, _document(path, line, line=number))


def _item(path: Path, number: int, item: Any) -> Row:
    where = f"{path}, item {number}"
    if not isinstance(item, dict) or not isinstance(item.get("path"), str) or not item["path"]:
        raise VideoListError(f"{where}: expected an object with a 'path'")
    label, captions, split = item.get("label"), item.get("caption", ()), item.get("split")
    captions = (captions,) if isinstance(captions, str) else captions or ()
    if split is not None and not isinstance(split, str):
        raise VideoListError(f"{where}: the split {split!r} is no text")
    if not isinstance(captions, (tuple, list)) or not all(
        isinstance(caption, str) and caption for caption in captions
    ):
        raise VideoListError(f"{where}: 'caption' is no text or list of texts")
    if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
        return Row(number, (item["path"],), None, label, tuple(captions), split)
    if label is not None and (not isinstance(label, str) or not label):
        raise VideoListError(f"{where}: the label {label!r} is no text")
    return Row(number, (item["path"],), label, None, tuple(captions), split)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers; Unicode's other line ends are text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _document(path: Path, text: str, *, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise VideoListError(
            f"{path}, line {line or error.lineno}: not JSON: {error.msg}"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise VideoListError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise VideoListError(f"{path}: not a text in UTF-8: {error.reason}") from error
