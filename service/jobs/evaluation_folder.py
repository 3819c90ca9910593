"""Labelled sets on the server: folders below one root that the operator named, and nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

from service.errors import ApiError
from service.jobs.evaluation_plan import too_many_videos
from service.jobs.unpack import SetFile

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_MAX_DEPTH: Final = 16


def list_folder(root: Path, folder: str, *, max_files: int) -> list[SetFile]:
    """Return the files of the folder `folder` below `root`; names are relative to it. Blocks.

    Hidden files and folders are passed over.

    Raises:
        ApiError: ``folder_not_allowed`` for whatever leads elsewhere, links included, and for what
            is no folder; ``too_many_videos``. Nothing tells what lies outside `root`.
    """
    parts = PurePosixPath(folder).parts
    if not parts or PurePosixPath(folder).is_absolute() or ".." in parts or _CONTROL.search(folder):
        raise _refused(folder)
    base = root.resolve()
    start = base.joinpath(*parts)
    if start.resolve() != start or not start.is_dir():
        raise _refused(folder)
    found: list[SetFile] = []
    for where, folders, files in os.walk(start, onerror=_unreadable, followlinks=False):
        inner = Path(where).relative_to(start)
        if len(inner.parts) > _MAX_DEPTH:
            raise _refused(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files) + folders:
            if name.startswith("."):
                continue
            path = Path(where, name)
            if path.is_symlink():
                raise ApiError(
                    "folder_not_allowed",
                    "The folder holds a link.",
                    param="folder",
                    actual=(inner / name).as_posix(),
                )
            if path.is_file():
                found.append(SetFile((inner / name).as_posix(), path))
            if len(found) > max_files:
                raise too_many_videos(limit=max_files, actual=len(found))
    return found


def _refused(folder: str) -> ApiError:
    return ApiError(
        "folder_not_allowed",
        "There is no such folder below VTAG_EVALUATION_ROOT.",
        param="folder",
        actual=_CONTROL.sub("?", folder),
    )


def _unreadable(error: OSError) -> None:
    raise ApiError(
        "folder_not_allowed", "A folder of the set cannot be read.", param="folder"
    ) from error
