"""The model store: artefacts on disk, and which of them is served."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from service.videoclip.manifest import (
    NAME_PATTERN,
    ArtefactError,
    Manifest,
    load_manifest,
    verify_files,
)

_ACTIVE: Final = "active.json"
_REVISION: Final = re.compile(r"[0-9a-f]{12}")
_NAME: Final = re.compile(NAME_PATTERN)


class ArtefactStore:
    """`root/<name>/<revision>/` folders, and `root/active.json`.

    Every `ArtefactError` is one line that names the file, what was expected and what was found.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> list[Manifest]:
        """Return the manifests of all artefacts, by name, then oldest first.

        Folders of other shapes (a publication that is being written) are passed over.

        Raises:
            ArtefactError: an artefact's manifest is broken.
        """
        if not self.root.is_dir():
            return []
        found = [
            self._manifest(folder)
            for name in sorted(self.root.iterdir())
            if name.is_dir() and _NAME.fullmatch(name.name)
            for folder in sorted(name.iterdir())
            if folder.is_dir() and _REVISION.fullmatch(folder.name)
        ]
        return sorted(found, key=lambda item: (item.name, item.created_at, item.revision))

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

    def manifest(self, name: str, revision: str) -> Manifest:
        """Return the manifest of an artefact.

        Raises:
            ArtefactError: no such artefact, or a broken manifest.
        """
        return self._manifest(self.folder(name, revision))

    def verify(self, name: str, revision: str) -> Manifest:
        """Check every file of an artefact against its manifest, and return the manifest.

        Raises:
            ArtefactError: the first file that is missing or altered.
        """
        manifest = self.manifest(name, revision)
        verify_files(self.folder(name, revision), manifest)
        return manifest

    def activate(self, name: str, revision: str) -> Manifest:
        """Make a verified artefact the active one; the one before becomes `previous`.

        `active.json` is replaced in one step: a reader sees the old or the new one.

        Raises:
            ArtefactError: no such artefact, or one that is broken; nothing is changed.
            OSError: the store cannot be written.
        """
        manifest = self.verify(name, revision)
        wanted = {"name": name, "revision": revision}
        present = self._read() if (self.root / _ACTIVE).exists() else {}
        previous = present.get("active")
        if previous == wanted:
            previous = present.get("previous")
        self._write({"active": wanted, "previous": previous})
        return manifest

    def previous(self) -> tuple[str, str] | None:
        """Return name and revision of what was active before, to roll back to, or None.

        Raises:
            ArtefactError: `active.json` is damaged.
        """
        entry = self._read().get("previous")
        return None if entry is None else _entry(entry)

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

    def _write(self, value: dict[str, Any]) -> None:
        descriptor, name = tempfile.mkstemp(prefix=".active-", dir=self.root)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(value, stream, indent=2)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(self.root / _ACTIVE)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _entry(value: object) -> tuple[str, str]:
    if isinstance(value, dict):
        name, revision = value.get("name"), value.get("revision")
        if isinstance(name, str) and isinstance(revision, str):
            return name, revision
    raise ArtefactError(_ACTIVE, expected="name and revision", found=str(value)[:99])
