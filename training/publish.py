"""Put a trained network into the model store: complete and verified, or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.videoclip.manifest import load_manifest, verify_files
from training.artefact import Description, write_artefact


class PublishError(RuntimeError):
    """The artefact cannot be published; nothing in the store has changed."""


def publish(
    description: Description,
    *,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    store: Path,
    real_clips: NDArray[np.float32] | None = None,
    real_texts: tuple[str, ...] = (),
    activate: bool = True,
    replace: bool = False,
) -> Path:
    """Export, compare, write and verify one artefact, and then make it visible at once.

    clip, tuned: the state dicts at λ = 1 and λ = 0. real_clips: float32 (n, T, 3, S, S),
    normalised, from real videos, and real_texts, for the comparison of the graphs with the network.
    activate: serve it from now on. replace: a revision with the very same weights may exist
    already; take its place.

    Returns the folder, `store/<name>/<revision>`. Raises ParityError when a graph differs from the
    network, ArtefactError when what was written does not verify, PublishError when the revision
    exists, ValueError when description and weights do not fit. In all these cases, and when the
    process is killed, the store is as it was, but for a folder whose name begins with a dot.
    """
    parent = store / description.name
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".publishing-", dir=parent))
    try:
        manifest = write_artefact(
            temporary,
            description,
            clip=clip,
            tuned=tuned,
            real_clips=real_clips,
            real_texts=real_texts,
        )
        folder = parent / manifest.revision
        if folder.exists() and not replace:
            raise PublishError(
                f"{description.name}/{manifest.revision}: these weights are published already"
            )
        verify_files(temporary, load_manifest(temporary))
        _sync(temporary)
        # mkdtemp makes folders that only their owner can read.
        temporary.chmod(0o755)
        _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if activate:
        set_active(store, name=manifest.name, revision=manifest.revision)
    return folder


def set_active(store: Path, *, name: str, revision: str) -> None:
    """Name the artefact that is served, and remember the one before. One atomic step.

    Raises ArtefactError when there is no such artefact.
    """
    load_manifest(store / name / revision)
    path = store / "active.json"
    wanted = {"name": name, "revision": revision}
    present = json.loads(path.read_text()) if path.exists() else {}
    previous = present.get("active")
    if previous == wanted:
        previous = present.get("previous")
    text = json.dumps({"active": wanted, "previous": previous}, indent=2) + "\n"
    descriptor, temporary = tempfile.mkstemp(prefix=".active-", dir=store)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put(temporary: Path, folder: Path) -> None:
    """Rename the finished folder to its final name."""
    if not folder.exists():
        temporary.rename(folder)
        return
    # Two renames: a reader in between finds nothing there, never a mixture.
    aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=folder.parent))
    folder.rename(aside / folder.name)
    temporary.rename(folder)
    shutil.rmtree(aside)
