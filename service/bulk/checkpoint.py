"""Which files of a source are done: a line each, written when their vectors are in the index."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.bulk.source import SourceFile

Outcome = Literal["indexed", "known", "failed"]


class CheckpointError(Exception):
    """The checkpoint cannot be used; the message is one line."""


@dataclass(frozen=True)
class Done:
    """What became of a file.

    Attributes:
        file: as it was listed.
        outcome: ``known``: its content was in the collection before.
        code: of what is wrong with it; empty unless it failed.
    """

    file: SourceFile
    outcome: Outcome
    code: str = ""


class Checkpoint:
    """A file of JSON lines that one load at a time appends to.

    A kill leaves at most half a line at its end, which is cut off at the next start; what it said
    is done again, and found in the index by its content.

    Args:
        path: made when missing.

    Raises:
        CheckpointError: another load has it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: Counter[Outcome] = Counter()
        self._done: dict[str, Done] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise CheckpointError(f"{path} belongs to a load that runs now") from None
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                file = SourceFile(entry["name"], entry["size"], entry["version"])
                self._done[file.name] = Done(file, entry["outcome"], entry.get("code", ""))
            except (ValueError, KeyError, TypeError):
                self._file.close()
                raise CheckpointError(
                    f"{self.path} is no checkpoint (byte {whole}); remove it to begin anew"
                ) from None
            whole += len(line)
        self._file.truncate(whole)

    def wants(self, file: SourceFile, *, failed_again: bool = False) -> bool:
        """Whether `file` has to be done: it is new, or another one under its name."""
        done = self._done.get(file.name)
        if done is None or done.file != file:
            return True
        return failed_again and done.outcome == "failed"

    def add(self, done: Iterable[Done]) -> None:
        """Write down what is done; when this returns it is on the disk."""
        for each in done:
            entry = {
                "name": each.file.name,
                "size": each.file.size_bytes,
                "version": each.file.version,
                "outcome": each.outcome,
            }
            if each.code:
                entry["code"] = each.code
            self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            self.outcomes[each.outcome] += 1
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another load have it."""
        self._file.close()
