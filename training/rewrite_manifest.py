"""Change what an artefact's manifest says beside its vectors: same folder, same revision."""

import json
import os
import tempfile
from pathlib import Path

from service.videoclip.manifest import MANIFEST_FILE, Manifest
from training.revision_folder import flush


def manifest_text(manifest: Manifest) -> str:
    """The manifest as the file holds it."""
    document = manifest.model_dump(mode="json")
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def rewrite_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace ``folder/manifest.json`` in one durable step: readers find the old or the new one.

    The new file is written beside the folder, so that the folder never holds another name.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".manifest-", dir=folder.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(manifest_text(manifest))
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(folder / MANIFEST_FILE)
        flush(folder)
    finally:
        Path(temporary).unlink(missing_ok=True)
