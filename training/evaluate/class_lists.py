"""Names of classes: lists that belong to data sets, and matching by name, never by position."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.errors import Refusal

_FOLDER = Path(__file__).parent / "class_lists"


class ClassListError(Refusal):
    """Names that do not fit a list of classes; says which name and which list."""


def class_list(name: str) -> tuple[str, ...]:
    """A list that this package carries, in its data set's own order; see class_lists/README.md."""
    return tuple((_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def read_class_list(path: Path) -> tuple[str, ...]:
    """Names from a file: CSV with a column `name`, lines ``name,index``, or one name a line.

    In CSV the order is that of the column `id`, if there is one, else of the lines; ``name,index``
    is how Moments in Time lists its categories. Raises ClassListError when the file cannot be read,
    is empty, or holds two spellings of one name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ClassListError(f"{path}: {reason}") from error
    rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    head = [cell.strip() for cell in rows[0]] if rows else []
    numbered: list[tuple[str, str]]  # name, place
    if "name" in head:
        at, place = head.index("name"), head.index("id") if "id" in head else None
        short = [i + 2 for i, row in enumerate(rows[1:]) if len(row) < len(head)]
        if short:
            raise ClassListError(f"{path}, line {short[0]}: fewer fields than the head has")
        numbered = [(row[at], "0" if place is None else row[place]) for row in rows[1:]]
    else:
        pairs = all(len(row) == 2 and row[1].strip().isdecimal() for row in rows)
        numbered = [(row[0], row[1]) if pairs else (",".join(row), "0") for row in rows]
    wrong = [place for _, place in numbered if not place.strip().isdecimal()]
    if wrong:
        raise ClassListError(f"{path}: {wrong[0]!r} is no index of a class")
    names = [name.strip() for name, _ in sorted(numbered, key=lambda pair: int(pair[1]))]
    if not names or not all(names):
        raise ClassListError(f"{path}: holds no names of classes, or an empty one")
    _by_key(names, where=str(path))
    return tuple(names)


def key(name: str) -> str:
    """What two spellings of one class share: letters and digits, without case.

    ``HandStandPushups``, ``Handstand Pushups`` and ``handstand_pushups`` are one class.
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def match(names: Iterable[str], classes: Sequence[str], *, where: str) -> dict[str, str]:
    """Spelling as given -> the class in `classes` that it means.

    where: names the list of classes in errors. Raises ClassListError for a name that is none of
    them, and when two classes differ in spelling only.
    """
    known = _by_key(classes, where=where)
    given = sorted(set(names))
    unknown = [name for name in given if key(name) not in known]
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise ClassListError(f"{unknown[0]!r}{more}: none of the {len(classes)} classes of {where}")
    return {name: known[key(name)] for name in given}


def others_than(names: Iterable[str], classes: Sequence[str]) -> set[str]:
    """Those of the names that mean none of the classes."""
    known = {key(name) for name in classes}
    return {name for name in names if key(name) not in known}


def list_hash(names: Sequence[str]) -> str:
    """sha256 of the names, one a line: two results are comparable only if these are equal."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def _by_key(classes: Sequence[str], *, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in classes:
        if key(name) in found:
            other = found[key(name)]
            raise ClassListError(f"{where}: {other!r} and {name!r} cannot be told apart")
        if not key(name):
            raise ClassListError(f"{where}: {name!r} has no letter or digit")
        found[key(name)] = name
    return found
