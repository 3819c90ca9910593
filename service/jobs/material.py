"""What jobs work on, on disk: one private folder for each, gone when the job ends."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

_OWNER: Final = "owner"


class MaterialFolders:
    """Folders below ``VTAG_DATA_DIR/jobs``, named by the ids of their jobs.

    Args:
        root: made when missing; nobody else writes into it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> str:
        """Make the root; return the name by which jobs know that their material lies here."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        path = self.root / _OWNER
        if not path.exists():
            beside = self.root / f".{_OWNER}.new"
            beside.write_text(secrets.token_hex(8))
            beside.replace(path)
        return path.read_text().strip()

    def of(self, job_id: str) -> Path:
        """Return the folder of a job, whether or not it exists."""
        return self.root / job_id

    def make(self, job_id: str) -> Path:
        """Make the folder of a new job."""
        folder = self.of(job_id)
        folder.mkdir(mode=0o700)
        return folder

    def remove(self, job_id: str) -> None:
        """Remove what a job worked on; nothing there is fine."""
        shutil.rmtree(self.of(job_id), ignore_errors=True)

    def clear(self, *, keep: Collection[str]) -> None:
        """Remove what no job needs: of uploads and jobs that a killed service left."""
        with os.scandir(self.root) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in found:
            if name not in keep:
                self.remove(name)
