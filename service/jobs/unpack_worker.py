"""What runs in the child that unpacks a stranger's archive: zip, tar or tar.gz, nothing else.

Files are written under numbers, never under the names in the archive; names are checked all the
same, because an archive that tries to leave its folder or to link out of it is no labelled set.
"""

import os
import re
import resource
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from service.channel import Channel, Header

_ADDRESS_SPACE_BYTES: Final = 1 << 30
_CHUNK_BYTES: Final = 1 << 20
_LOOK_AT_DISK_BYTES: Final = 64 << 20
_MAX_NAME_CHARACTERS: Final = 512
_MAX_DEPTH: Final = 16
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_DRIVE: Final = re.compile("[A-Za-z]:")
_ENCRYPTED: Final = 1
_BROKEN: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,
    UnicodeError,
    ValueError,
)


class RefusedError(Exception):
    """The archive is not taken; the arguments are those of the problem."""

    def __init__(self, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.answer = {"code": code, "detail": detail, **more}


@dataclass(frozen=True)
class Entry:
    """One regular file in an archive."""

    name: str
    size_bytes: int
    source: Any


def serve(channel: Channel) -> None:
    """Answer one `unpack` message after another until the parent closes the channel."""
    while (message := channel.receive()) is not None:
        header, _ = message
        channel.send({"id": header["id"], "taken": True})
        channel.send({"id": header["id"], **_answer(header)})


def _answer(header: Header) -> Header:
    _restrict(header)
    try:
        return {"files": _Unpacking(header).run()}
    except RefusedError as refused:
        return {"refused": refused.answer}
    except MemoryError:
        detail = "The archive needs more memory than unpacking may take."
        return {"refused": {"code": "archive_too_large", "detail": detail}}
    except _BROKEN as error:
        return {"refused": _broken(error)}
    except OSError as error:
        # gzip's own complaint is an OSError too; only those of the system have a number.
        if error.errno is None:
            return {"refused": _broken(error)}
        detail = "There is no room for this upload now."
        return {"refused": {"code": "spool_full", "detail": detail}}


def _broken(error: Exception) -> Header:
    # Only the kind of the error: its words may hold what the archive wants to be said.
    return {
        "code": "invalid_archive",
        "detail": f"The archive is damaged ({type(error).__name__}).",
    }


def _restrict(header: Header) -> None:
    limits = ((resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES), (resource.RLIMIT_CORE, 0))
    for kind, value in (*limits, (resource.RLIMIT_FSIZE, int(header["max_file_bytes"]))):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, hard))


class _Unpacking:
    """One archive on its way to `target`."""

    def __init__(self, header: Header) -> None:
        self._archive = Path(header["archive"])
        self._target = Path(header["target"])
        self._max_files = int(header["max_files"])
        self._max_bytes = int(header["max_bytes"])
        self._max_file_bytes = int(header["max_file_bytes"])
        self._reserve_bytes = int(header["reserve_bytes"])
        self._written = 0
        self._seen: set[str] = set()

    def run(self) -> list[list[object]]:
        """Return name and number of each file that was unpacked."""
        with self._archive.open("rb") as stream:
            magic = stream.read(512)
        if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            with zipfile.ZipFile(self._archive) as archive:
                self._declared(archive)
                return self._write(self._of_zip(archive))
        compressed = magic[:2] == b"\x1f\x8b"
        if compressed or magic[257:262] == b"ustar":
            mode: Any = "r|gz" if compressed else "r|"
            with tarfile.open(self._archive, mode) as tar:
                return self._write(self._of_tar(tar))
        raise RefusedError(
            "unsupported_archive", "The archive must be zip, tar or tar.gz.", param="archive"
        )

    def _declared(self, archive: zipfile.ZipFile) -> None:
        """Refuse by what a zip says of itself, before anything is written."""
        entries = archive.infolist()
        self._count(len(entries))
        self._room(sum(entry.file_size for entry in entries))

    def _of_zip(self, archive: zipfile.ZipFile) -> Iterator[Entry]:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _no_file(info.filename)
            if info.flag_bits & _ENCRYPTED:
                raise RefusedError(
                    "invalid_archive",
                    "A file in the archive is encrypted.",
                    param="archive",
                    actual=_shown(info.filename),
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RefusedError(
                    "unsupported_archive",
                    "A zip must store or deflate its files.",
                    param="archive",
                    actual=_shown(info.filename),
                )
            name = self._name(info.filename, is_folder=info.is_dir())
            if name is not None:
                yield Entry(name, info.file_size, lambda info=info: archive.open(info))

    def _of_tar(self, tar: tarfile.TarFile) -> Iterator[Entry]:
        for number, member in enumerate(tar, start=1):
            self._count(number)
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _no_file(member.name)
            name = self._name(member.name, is_folder=member.isdir())
            if name is not None:
                self._room(self._written + member.size)
                yield Entry(name, member.size, lambda member=member: tar.extractfile(member))

    def _name(self, given: str, *, is_folder: bool) -> str | None:
        """Return a checked name with slashes; None for folders and what systems leave behind."""
        name = given.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if len(name) > _MAX_NAME_CHARACTERS or len(parts) > _MAX_DEPTH or _CONTROL.search(name):
            raise RefusedError(
                "invalid_archive",
                f"A name in the archive is longer than {_MAX_NAME_CHARACTERS} characters, deeper"
                f" than {_MAX_DEPTH} folders, or holds control characters.",
                param="archive",
                actual=_shown(given),
            )
        if name.startswith("/") or _DRIVE.match(name) or ".." in parts:
            raise RefusedError(
                "invalid_archive",
                "A name in the archive leads out of it.",
                param="archive",
                actual=_shown(given),
            )
        if is_folder or not parts or parts[0] == "__MACOSX" or parts[-1].startswith("."):
            return None
        plain = "/".join(parts)
        if plain in self._seen:
            raise RefusedError(
                "invalid_archive",
                "The archive holds a name twice.",
                param="archive",
                actual=_shown(given),
            )
        self._seen.add(plain)
        return plain

    def _write(self, entries: Iterator[Entry]) -> list[list[object]]:
        files: list[list[object]] = []
        for number, entry in enumerate(entries):
            if entry.size_bytes > self._max_file_bytes:
                raise self._file_too_large(entry.name, entry.size_bytes)
            with closing(entry.source()) as stream:
                self._copy(stream, f"{number:06d}", name=entry.name)
            files.append([entry.name, f"{number:06d}"])
        return files

    def _copy(self, stream: IO[bytes], number: str, *, name: str) -> None:
        size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._target / number, flags, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            while chunk := stream.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > self._max_file_bytes:  # whatever it said of itself
                    raise self._file_too_large(name, size)
                before = self._written
                self._written += len(chunk)
                self._room(self._written)
                if before // _LOOK_AT_DISK_BYTES != self._written // _LOOK_AT_DISK_BYTES:
                    self._look_at_disk()
                target.write(chunk)

    def _count(self, files: int) -> None:
        if files > self._max_files:
            raise RefusedError(
                "archive_too_large",
                f"The archive holds more than {self._max_files} entries.",
                param="archive",
                limit=self._max_files,
                actual=files,
            )

    def _room(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise RefusedError(
                "archive_too_large",
                f"The archive unpacks to more than {self._max_bytes} bytes.",
                param="archive",
                limit=self._max_bytes,
                actual=size_bytes,
            )

    def _look_at_disk(self) -> None:
        room = os.statvfs(self._target)
        if room.f_bavail * room.f_frsize <= self._reserve_bytes:
            raise RefusedError(
                "spool_full", "There is no room for this upload now.", param="archive"
            )

    def _file_too_large(self, name: str, size: int) -> RefusedError:
        return RefusedError(
            "archive_too_large",
            f"{_shown(name)!r} is larger than {self._max_file_bytes} bytes.",
            param="archive",
            limit=self._max_file_bytes,
            actual=size,
        )


def _no_file(name: str) -> RefusedError:
    return RefusedError(
        "invalid_archive",
        "The archive holds something that is neither a file nor a folder (a link, a device).",
        param="archive",
        actual=_shown(name),
    )


def _shown(name: str) -> str:
    text = _CONTROL.sub("?", name).encode("utf-8", "replace").decode()
    return text if len(text) <= 100 else f"{text[:97]}..."
