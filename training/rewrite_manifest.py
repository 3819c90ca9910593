"""Change what an artefact says beside its vectors: same folder, same revision."""

import json
import os
import tempfile
from pathlib import Path

from service.videoclip.manifest import MANIFEST_FILE, REVISION_FILES, Manifest, describe_file
from training.revision_folder import flush


def manifest_text(manifest: Manifest) -> str:
    """The manifest as the file holds it."""
    document = manifest.model_dump(mode="json")
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def rewrite_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace ``folder/manifest.json`` in one durable step: readers find the old or the new one."""
    _put(folder, MANIFEST_FILE, manifest_text(manifest).encode())


def add_file(folder: Path, manifest: Manifest, *, name: str, content: bytes) -> Manifest:
    """Add a file that is no part of the revision, and return the manifest that lists it.

    The file is there before the manifest lists it: readers find an artefact with or without it,
    and after a kill in between it is one that nobody reads. Raises ValueError for a file of the
    revision, or one that is listed.
    """
    if name in REVISION_FILES or name in manifest.files:
        raise ValueError(f"{name}: cannot be added to {manifest.name}@{manifest.revision}")
    _put(folder, name, content)
    files = {**manifest.files, name: describe_file(folder / name)}
    listed = Manifest.model_validate(manifest.model_copy(update={"files": files}).model_dump())
    rewrite_manifest(folder, listed)
    return listed


def _put(folder: Path, name: str, content: bytes) -> None:
    """Written beside the folder, so that the folder never holds another name."""
    descriptor, temporary = tempfile.mkstemp(prefix=".manifest-", dir=folder.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(folder / name)
        flush(folder)
    finally:
        Path(temporary).unlink(missing_ok=True)
