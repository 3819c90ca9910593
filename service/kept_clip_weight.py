"""The λ that was chosen while the service ran, kept for the next start."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

logger = logging.getLogger("vtag")


class KeptClipWeight:
    """A small file below ``VTAG_DATA_DIR``; it counts for the artefact it was written for.

    Without it a restart would serve the artefact's default again, and search would find nothing
    of what was indexed at the chosen λ.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, name: str, revision: str) -> float | None:
        """Return the λ kept for this artefact, or None: nothing kept, another one's, damaged.

        A damaged file is warned about: an operator's choice must not vanish in silence.
        """
        try:
            value = json.loads(self.path.read_bytes())
            kept = (value["name"], value["revision"])
            weight = value["lambda"]
            if type(weight) not in (int, float) or not 0.0 <= weight <= 1.0:
                raise ValueError("not a number from 0 to 1")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning(
                "%s is damaged (%s): the artefact's default lambda is served",
                self.path,
                type(error).__name__,
            )
            return None
        if kept != (name, revision):
            logger.info("the kept lambda is of %s@%s: the default is served", *kept)
            return None
        return float(weight)

    def write(self, clip_weight: float, *, name: str, revision: str) -> None:
        """Replace the file in one step; when this returns it is on the disk.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        value = {"name": name, "revision": revision, "lambda": clip_weight}
        beside = self.path.with_name(f".{self.path.name}.new")
        with beside.open("w", encoding="utf-8") as stream:
            json.dump(value, stream)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
