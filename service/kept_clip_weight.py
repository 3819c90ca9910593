"""The λ that were chosen while the service ran, kept for the next start."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

logger = logging.getLogger("vtag")

_MOST: Final = 100
"""Artefacts whose λ is kept; of more, those chosen first are forgotten."""


class KeptClipWeight:
    """A small file below ``VTAG_DATA_DIR``; each λ counts for the artefact it was chosen for.

    Without it a restart, or going back to an artefact, would serve its default again, and search
    would find nothing of what was indexed at the chosen λ.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, name: str, revision: str) -> float | None:
        """Return the λ kept for this artefact, or None: nothing kept, or damaged.

        A damaged file is warned about: an operator's choice must not vanish in silence.
        """
        try:
            return self._read().get(f"{name}@{revision}")
        except _Damaged as error:
            logger.warning(
                "%s is damaged (%s): the artefact's default lambda is served", self.path, error
            )
            return None

    def write(self, clip_weight: float, *, name: str, revision: str) -> None:
        """Replace the file in one step; when this returns it is on the disk.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        key = f"{name}@{revision}"
        try:
            kept = self._read()
        except _Damaged:
            kept = {}  # it was warned about when it was read
        kept.pop(key, None)
        kept = dict([*kept.items(), (key, clip_weight)][-_MOST:])
        beside = self.path.with_name(f".{self.path.name}.new")
        with beside.open("w", encoding="utf-8") as stream:
            json.dump({"lambdas": kept}, stream)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self) -> dict[str, float]:
        """Return `name@revision` -> λ, the newest choice last."""
        try:
            value = json.loads(self.path.read_bytes())
            if "lambdas" not in value:  # of a version that kept one
                value = {"lambdas": {f"{value['name']}@{value['revision']}": value["lambda"]}}
            kept = dict(value["lambdas"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _Damaged(type(error).__name__) from error
        for weight in kept.values():
            if type(weight) not in (int, float) or not 0.0 <= weight <= 1.0:
                raise _Damaged("not a number from 0 to 1")
        return {str(key): float(weight) for key, weight in kept.items()}


class _Damaged(Exception):  # noqa: N818 - it is a state, not a failure
    """The file cannot be understood."""
