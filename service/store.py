"""The model store: artefacts on disk, and which of them is served."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.videoclip.manifest import (
    NAME_PATTERN,
    ArtefactError,
    Manifest,
    load_manifest,
)

_ACTIVE: Final = "active.json"
_WEIGHTS: Final = "weights_clip.safetensors"
_REVISION: Final = re.compile(r"[0-9a-f]{12}")
_NAME: Final = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class StoredArtefact:
    """What lies in one folder of the store.

    Attributes:
        name: of its folder.
        revision: of its folder, 12 hex digits.
        manifest: None if it is damaged.
        number_types: of its weights, in the spelling of safetensors, such as `("F32",)`.
        fault: one line; None if it is not damaged.
    """

    name: str
    revision: str
    manifest: Manifest | None = None
    number_types: tuple[str, ...] = ()
    fault: str | None = None


Stamps = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and number of each file of a folder."""

ActiveStamps = tuple[bytes, Stamps | None]
"""The bytes of `active.json`, and the stamps of the folder that it names."""


@dataclass(frozen=True)
class Signature:
    """How the store looks from outside, to be compared with how it looked before.

    Attributes:
        active: what is to be served.
        artefacts: (name, revision) -> the files of each artefact.
    """

    active: ActiveStamps
    artefacts: Mapping[tuple[str, str], Stamps]


class ArtefactStore:
    """`root/<name>/<revision>/` folders, and `root/active.json`.

    Every `ArtefactError` is one line that names the file, what was expected and what was found.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> list[StoredArtefact]:
        """Return all artefacts, by name, then oldest first; a damaged one with its fault.

        Folders of other shapes (a publication that is being written) are passed over.
        """
        return sorted(
            (self._look(folder) for folder in self._folders()),
            key=lambda item: (
                item.name,
                item.manifest.created_at if item.manifest is not None else "",
                item.revision,
            ),
        )

    def folder(self, name: str, revision: str) -> Path:
        """Return the folder of an artefact.

        Raises:
            ArtefactError: a name that is none, or no such artefact.
        """
        if not _NAME.fullmatch(name) or not _REVISION.fullmatch(revision):
            raise ArtefactError(
                _ACTIVE,
                expected="name and revision of an artefact",
                found=f"{name}/{revision}"[:99],
            )
        path = self.root / name / revision
        if not path.is_dir():
            raise ArtefactError(f"{name}/{revision}", expected="a folder", found="none")
        return path

    def active(self) -> Manifest:
        """Return the manifest of the artefact that is to be served.

        Raises:
            ArtefactError: nothing is active, `active.json` is damaged, or the manifest is broken.
        """
        entry = self._read().get("active")
        if entry is None:
            raise ArtefactError(_ACTIVE, expected="an active artefact", found="none")
        return self.manifest(*_entry(entry))

    def look(self, name: str, revision: str) -> StoredArtefact:
        """Return one artefact as `list` does.

        Raises:
            ArtefactError: a name that is none, or no such artefact.
        """
        return self._look(self.folder(name, revision))

    def signature(self) -> Signature:
        """Return what changes whenever something in the store does; only one file is read."""
        artefacts = {(each.parent.name, each.name): _stamps(each) for each in self._folders()}
        try:
            raw = (self.root / _ACTIVE).read_bytes()
        except OSError as error:
            raw = str(error.errno).encode()
        try:
            target = _entry(self._read().get("active"))
        except ArtefactError:
            return Signature((raw, None), artefacts)
        return Signature((raw, artefacts.get(target)), artefacts)

    def set_active(self, name: str, revision: str) -> None:
        """Name the artefact that the next start serves, and remember the one before; one step.

        Raises:
            OSError: it cannot be written; the old file is as it was.
        """
        wanted = {"name": name, "revision": revision}
        try:
            present = self._read()
        except ArtefactError:
            present = {}  # what is damaged is replaced
        if present.get("active") == wanted:
            return
        content = {"active": wanted, "previous": present.get("active")}
        descriptor, beside = tempfile.mkstemp(prefix=".active-", dir=self.root)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(json.dumps(content, indent=2) + "\n")
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            Path(beside).replace(self.root / _ACTIVE)
        finally:
            Path(beside).unlink(missing_ok=True)
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def manifest(self, name: str, revision: str) -> Manifest:
        """Return the manifest of an artefact.

        Raises:
            ArtefactError: no such artefact, or a broken manifest.
        """
        return self._manifest(self.folder(name, revision))

    def _folders(self) -> Sequence[Path]:
        return [
            folder
            for name in _below(self.root)
            if _NAME.fullmatch(name.name)
            for folder in _below(name)
            if _REVISION.fullmatch(folder.name)
        ]

    def _look(self, folder: Path) -> StoredArtefact:
        name, revision = folder.parent.name, folder.name
        try:
            manifest = self._manifest(folder)
            _compare_sizes(folder, manifest)
            number_types = _number_types(folder / _WEIGHTS)
        except ArtefactError as error:
            return StoredArtefact(name, revision, fault=str(error))
        return StoredArtefact(name, revision, manifest=manifest, number_types=number_types)

    def _manifest(self, folder: Path) -> Manifest:
        where = f"{folder.parent.name}/{folder.name}"
        try:
            manifest = load_manifest(folder)
        except ArtefactError as error:
            raise ArtefactError(
                f"{where}/{error.file}", expected=error.expected, found=error.found
            ) from error
        if (manifest.name, manifest.revision) != (folder.parent.name, folder.name):
            raise ArtefactError(
                f"{where}/manifest.json",
                expected="name and revision of its folder",
                found=f"{manifest.name}/{manifest.revision}",
            )
        return manifest

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads((self.root / _ACTIVE).read_bytes())
        except OSError as error:
            reason = error.strerror or "an I/O error"
            raise ArtefactError(_ACTIVE, expected="a readable file", found=reason) from error
        except (ValueError, RecursionError) as error:
            raise ArtefactError(_ACTIVE, expected="JSON", found="something else") from error
        if not isinstance(value, dict):
            raise ArtefactError(_ACTIVE, expected="an object", found=type(value).__name__)
        return value


def _below(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none of one that is not there (any more)."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _stamps(folder: Path) -> Stamps:
    stamps = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat()
                stamps.append((entry.name, found.st_size, found.st_mtime_ns, found.st_ino))
    except OSError:
        stamps.append(("", -1, 0, 0))  # it is being changed at this moment
    return tuple(sorted(stamps))


def _compare_sizes(folder: Path, manifest: Manifest) -> None:
    """Find what was cut or is missing; the content is read when an artefact is loaded."""
    for name, entry in sorted(manifest.files.items()):
        where = f"{folder.parent.name}/{folder.name}/{name}"
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            reason = error.strerror or "none"
            raise ArtefactError(where, expected="a readable file", found=reason) from error
        if size != entry.size_bytes:
            raise ArtefactError(where, expected=f"{entry.size_bytes} bytes", found=f"{size}")


def _number_types(path: Path) -> tuple[str, ...]:
    """Return the number types in a safetensors file; only its header is read."""
    from safetensors import SafetensorError, safe_open

    where = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    try:
        with safe_open(path, framework="numpy") as stream:
            names = stream.keys()
            return tuple(sorted({stream.get_slice(name).get_dtype() for name in names}))
    except OSError as error:
        reason = error.strerror or "none"
        raise ArtefactError(where, expected="a readable file", found=reason) from error
    except SafetensorError as error:
        raise ArtefactError(where, expected="a safetensors file", found="something else") from error


def _entry(value: object) -> tuple[str, str]:
    if isinstance(value, dict):
        name, revision = value.get("name"), value.get("revision")
        if isinstance(name, str) and isinstance(revision, str):
            return name, revision
    raise ArtefactError(_ACTIVE, expected="name and revision", found=str(value)[:99])
