"""Find the file of a video by the name that a list has for it."""

import os
from collections.abc import Sequence
from pathlib import Path

from training.errors import Refusal

#: Suffixes that may be missing in a list, or be others there.
SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".flv",
        ".ogv",
        ".wmv",
        ".asf",
        ".3gp",
    ]
)


class VideoFiles:
    """The videos below a folder. Every folder is listed once, when the first name leads there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def find(self, names: Sequence[str]) -> Path:
        """The first of `names` that is there: as it stands, or with another suffix of videos.

        names: relative to the root, or absolute; at least one. Returns the first as it stands if
        none is there. Raises Refusal when two files differ from a name only in their suffix.
        """
        for name in names:
            path = self._root / name
            files, stems = self._listing(path.parent)
            if path.name in files:
                return path
            stem = stem_of(path.name)
            fitting = stems.get(stem, [])
            if len(fitting) > 1:
                raise Refusal(f"{path}: {fitting[0]} and {fitting[1]} are both there; which one?")
            if fitting:
                return path.parent / fitting[0]
        return self._root / names[0]

    def _listing(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._folders:
            try:
                with os.scandir(folder) as entries:
                    files = sorted(entry.name for entry in entries if not entry.is_dir())
            except OSError:
                files = []  # its videos are missing, which is told where they are decoded
            stems: dict[str, list[str]] = {}
            for name in files:
                if Path(name).suffix.lower() in SUFFIXES:
                    stems.setdefault(stem_of(name), []).append(name)
            self._folders[folder] = (set(files), stems)
        return self._folders[folder]


def stem_of(name: str) -> str:
    """The name without a suffix of videos; other dots are part of it. Folders stay."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - names of lists, also with folders
    return stem if suffix.lower() in SUFFIXES else name
