"""JSON Lines that grow while a long job runs, and tell it where to go on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.errors import Refusal


class RecordError(Refusal):
    """A file of an earlier run that cannot be continued; names it and what is wrong."""


class Records:
    """Lines ``{"path": …, <field>: …}``; one that is there is done.

    Beside the file lies ``<name>.settings.json``, which says how its lines were made: lines made
    in two ways must not end up in one file.
    """

    def __init__(self, path: Path, *, field: str, settings: Mapping[str, Any]) -> None:
        """Open a file to go on, or begin it.

        A last line without its end, of a process that was killed, is dropped. Raises RecordError
        when the file was made with other settings, or holds something else.
        """
        self.path = path
        self.field = field
        self._check(settings)
        self.done: dict[str, Any] = {}
        self._read()
        self._file = path.open("a", encoding="utf-8")

    def add(self, name: str, value: Any) -> None:
        """Write one line; after `flush` it is there for good."""
        line = json.dumps({"path": name, self.field: value}, ensure_ascii=False)
        self._file.write(line + "\n")
        self.done[name] = value

    def flush(self) -> None:
        """Put what was added on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _check(self, settings: Mapping[str, Any]) -> None:
        beside = self.path.with_name(self.path.name + ".settings.json")
        wanted = json.loads(json.dumps(settings))
        if not self.path.exists():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                beside.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
                self.path.touch()
            except OSError as error:
                raise RecordError(f"{self.path}: {error.strerror}") from error
            return
        try:
            present = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{self.path}: exists, but {beside.name} does not say how it was made"
            ) from error
        for key in sorted({*present, *wanted}):
            if present.get(key) != wanted.get(key):
                raise RecordError(
                    f"{self.path}: was begun with {key} = {present.get(key)!r}, not "
                    f"{wanted.get(key)!r}; choose another file or remove it"
                )

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                self.done[record["path"]] = record[self.field]
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{self.path}, line {number}: not a record of {self.field}"
                ) from error
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
