"""Archives to numbered files, in a child process that cannot take more than it was given."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.channel import Header
from service.child import Child, ChildDiedError
from service.errors import ApiError

_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class SetFile:
    """A file of a labelled set: its name in the archive or folder, and where it lies."""

    name: str
    path: Path


@dataclass(frozen=True)
class UnpackLimits:
    """What an archive may hold.

    Attributes:
        max_files: entries, folders included.
        max_bytes: all files together, unpacked.
        max_file_bytes: one file, unpacked.
        reserve_bytes: disk space that is left free.
        seconds: wall-clock time for all of it.
    """

    max_files: int
    max_bytes: int
    max_file_bytes: int
    reserve_bytes: int
    seconds: float


async def unpack(archive: Path, *, target: Path, limits: UnpackLimits) -> list[SetFile]:
    """Unpack `archive` into the empty folder `target`.

    Raises:
        ApiError: ``unsupported_archive``, ``invalid_archive``, ``archive_too_large`` or
            ``spool_full``; what was written until then is left for the caller to remove.
    """
    child = await Child.start(
        "service.jobs.unpack_worker",
        name="unpack",
        environment={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        folder=Path("/"),
    )
    header: Header = {
        "op": "unpack",
        "archive": str(archive.absolute()),
        "target": str(target.absolute()),
        "max_files": limits.max_files,
        "max_bytes": limits.max_bytes,
        "max_file_bytes": limits.max_file_bytes,
        "reserve_bytes": limits.reserve_bytes,
    }
    try:
        async with asyncio.timeout(limits.seconds):
            answer, _ = await child.call(header)
    except TimeoutError:
        raise ApiError(
            "archive_too_large",
            "Unpacking took longer than allowed.",
            param="archive",
            limit=limits.seconds,
        ) from None
    except ChildDiedError:
        raise ApiError(
            "invalid_archive", "The archive cannot be unpacked.", param="archive"
        ) from None
    finally:
        await child.kill()
    if "refused" in answer:
        raise _refusal(answer["refused"])
    return [SetFile(str(name), target / str(number)) for name, number in answer["files"]]


def _refusal(refused: dict[str, Any]) -> ApiError:
    code = str(refused["code"])
    return ApiError(
        code,
        str(refused["detail"]),
        param="archive",
        limit=refused.get("limit"),
        actual=refused.get("actual"),
        retry_after_seconds=30 if code == "spool_full" else None,
    )
