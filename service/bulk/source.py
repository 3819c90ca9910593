"""Where the videos of a bulk load lie: a folder, or a bucket of S3."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from obstore.store import S3Store

SUFFIXES: Final = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".webm", ".wmv"}
)
"""Endings of files that are taken for videos; what they hold decides whether they are."""


class SourceError(Exception):
    """The source cannot be used; the message is one line."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        name: its path below the source, with "/".
        size_bytes: its length.
        version: changes whenever its content does: the time of its change, or the bucket's ETag.
    """

    name: str
    size_bytes: int
    version: str


class Source(Protocol):
    """Files by name. Plain data: it travels to the machines that read from it."""

    def files(self) -> Iterator[SourceFile]:
        """Yield the videos, in no order.

        Raises:
            SourceError: it cannot be listed.
        """

    def local(self, name: str) -> AbstractContextManager[Path]:
        """Lend a file of this machine with the bytes.

        Raises:
            OSError: they cannot be read (any more).
        """


@dataclass(frozen=True)
class Folder:
    """A folder that every machine of the cluster sees under the same path."""

    root: Path

    def files(self) -> Iterator[SourceFile]:
        """Yield the videos below it; links to folders are not followed."""
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder")
        for path in self.root.rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                facts = path.stat()
                name = path.relative_to(self.root).as_posix()
                yield SourceFile(name, facts.st_size, str(facts.st_mtime_ns))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Lend the file itself."""
        path = self.root / name
        path.stat()
        yield path


@dataclass(frozen=True)
class Bucket:
    """Objects below a prefix of a bucket; credentials, region and endpoint as all S3 tools do."""

    url: str

    def files(self) -> Iterator[SourceFile]:
        """Yield the videos below the prefix."""
        from obstore.exceptions import BaseError  # 12 MB that folders do not need

        try:
            for page in self._store().list():
                for found in page:
                    name = str(found["path"])
                    if Path(name).suffix.lower() in SUFFIXES:
                        version = str(found["e_tag"] or found["last_modified"].isoformat())
                        yield SourceFile(name, int(found["size"]), version)
        except (BaseError, OSError) as error:
            raise SourceError(f"{self.url} cannot be listed ({type(error).__name__})") from error

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Lend a copy in a folder that is removed afterwards."""
        from obstore.exceptions import BaseError

        with tempfile.TemporaryDirectory(prefix="vtag-bulk-") as folder:
            path = Path(folder) / f"video{Path(name).suffix.lower()}"
            try:
                with path.open("wb") as file:
                    for chunk in self._store().get(name).stream(min_chunk_size=1024 * 1024):
                        file.write(chunk)
            except BaseError as error:
                raise OSError(f"{name} cannot be read ({type(error).__name__})") from error
            yield path

    def _store(self) -> S3Store:
        from service.media.s3 import open_bucket

        return open_bucket(self.url)


def open_source(text: str) -> Source:
    """Return the source that ``s3://bucket/prefix`` or the path of a folder names.

    Raises:
        SourceError: it names neither.
    """
    if text.startswith("s3://"):
        if not text.removeprefix("s3://").partition("/")[0]:
            raise SourceError(f"{text}: s3://BUCKET/PREFIX names a bucket")
        return Bucket(text)
    if "://" in text:
        raise SourceError(f"{text}: a folder or s3://BUCKET/PREFIX, nothing else")
    return Folder(Path(text).expanduser().absolute())
