"""Put a trained network into the model store: complete and verified, or not at all."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.videoclip.manifest import VARIANT_FILES, VariantName, load_manifest, verify_files
from training.artefact import Description, write_artefact
from training.errors import Refusal
from training.revision_folder import flush, put, written_aside
from training.variant_losses import BOUND, LabelledClips


class PublishError(Refusal):
    """The artefact cannot be published; nothing in the store has changed."""


def publish(
    description: Description,
    *,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    store: Path,
    real_clips: NDArray[np.float32] | None = None,
    real_texts: tuple[str, ...] = (),
    evaluation_sets: Mapping[str, LabelledClips] | None = None,
    variants: Sequence[VariantName] = tuple(VARIANT_FILES),
    variant_bound: float = BOUND,
    activate: bool = True,
    replace: bool = False,
) -> Path:
    """Export, compare, write and verify one artefact, and then make it visible at once.

    clip, tuned: the state dicts at λ = 1 and λ = 0. real_clips: float32 (n, T, 3, S, S),
    normalised, from real videos, and real_texts, for the comparison of the graphs with the network.
    evaluation_sets: by name; with them, those of `variants`, graphs in fewer bits, are added
    (`training.variants`) which lose at most `variant_bound` points of top-1 on each; what they
    lose, and which are left out, is printed. activate: serve it from now on. replace: a revision
    with the very same weights may exist already; take its place.

    Returns the folder, `store/<name>/<revision>`. Raises ParityError when a graph differs from the
    network, ArtefactError when what was written does not verify, PublishError when the revision
    exists, DescriptionError when description and weights do not fit. In all these cases, and when
    the process is killed, readers find the store as it was; a folder whose name begins with a dot
    may be left, and goes with the next publication. A replaced folder changes in one step, see
    `training.revision_folder.put`.
    """
    parent = store / description.name
    parent.mkdir(parents=True, exist_ok=True)
    with written_aside(parent) as written:
        manifest = write_artefact(
            written,
            description,
            clip=clip,
            tuned=tuned,
            real_clips=real_clips,
            real_texts=real_texts,
            evaluation_sets=evaluation_sets,
            variants=variants,
            variant_bound=variant_bound,
        )
        verify_files(written, load_manifest(written))
        # It was made for its owner's eyes only.
        written.chmod(0o755)
        folder = parent / manifest.revision
        try:
            put(written, folder, replace=replace)
        except FileExistsError as error:
            raise PublishError(
                f"{description.name}/{manifest.revision}: these weights are published already"
            ) from error
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
        flush(store)
    finally:
        Path(temporary).unlink(missing_ok=True)
