"""The revision: equal exactly when vectors can be compared."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.manifest import (
    REQUIRED_FILES,
    ArtefactError,
    FileEntry,
    Sampling,
    load_manifest,
    revision_of,
    verify_files,
)
from tests.service.videoclip.test_manifest import PREPROCESSING, SAMPLING, write, write_artefact


def revision(files: dict[str, FileEntry], **changed: Any) -> str:
    """The revision of files that are used in one way, or in a changed one."""
    way: dict[str, Any] = {
        "sampling": SAMPLING,
        "preprocessing": PREPROCESSING,
        "pooling": "normalize_then_mean",
    }
    return revision_of(files, **{**way, **changed})


def test_a_revision_must_be_that_of_the_files(tmp_path: Path) -> None:
    """A manifest that was copied to other weights is found out."""
    document = write_artefact(tmp_path)
    document["revision"] = "0123456789ab"
    write(tmp_path, document)
    with pytest.raises(ArtefactError, match=r"expected revision [0-9a-f]{12}, found 0123456789ab"):
        verify_files(tmp_path, load_manifest(tmp_path))


@given(
    digests=st.lists(st.integers(0, 2**256 - 1), min_size=5, max_size=5),
    size=st.integers(0, 10**12),
)
def test_of_the_files_a_revision_depends_on_hashes_alone(digests: list[int], size: int) -> None:
    """Not on the order of the files, not on their sizes, not on the card."""
    files = {
        name: FileEntry(sha256=f"{digest:064x}", size_bytes=size)
        for name, digest in zip(sorted(REQUIRED_FILES), digests, strict=True)
    }
    shuffled = dict(reversed(files.items()))
    shuffled["MODEL_CARD.md"] = FileEntry(sha256="0" * 64, size_bytes=1)
    found = revision(files)
    assert found == revision(shuffled)
    assert len(found) == 12
    files["tokenizer.json"] = FileEntry(sha256=f"{digests[0] ^ 1:064x}", size_bytes=size)
    files["text_encoder.onnx"] = FileEntry(sha256=f"{digests[0] ^ 2:064x}", size_bytes=size)
    assert revision(files) != found


@pytest.mark.parametrize(
    "changed",
    [
        {"pooling": "mean_then_normalize"},
        {"preprocessing": PREPROCESSING.model_copy(update={"mean": (0.5, 0.5, 0.4)})},
        {"preprocessing": PREPROCESSING.model_copy(update={"image_size": 48})},
        {"sampling": SAMPLING.model_copy(update={"frames": 16})},
        {"sampling": Sampling(mode="strided", frames=8, stride_seconds=0.5)},
        {"sampling": Sampling(mode="strided", frames=8, stride_seconds=0.5, views=3)},
    ],
)
def test_whatever_changes_a_vector_changes_the_revision(changed: dict[str, Any]) -> None:
    """The same weights, used in another way, give vectors that cannot be compared."""
    files = {name: FileEntry(sha256="0" * 64, size_bytes=1) for name in REQUIRED_FILES}
    assert revision(files, **changed) != revision(files)


def test_a_revision_can_be_computed_by_other_programs() -> None:
    """Lines as of sha256sum, and one of JSON: what the documentation says."""
    files = {name: FileEntry(sha256="0" * 64, size_bytes=1) for name in REQUIRED_FILES}
    way = (
        '{"pooling":"normalize_then_mean","preprocessing":{"crop":"center","image_size":40,'
        '"interpolation":"bicubic","mean":[0.5,0.5,0.5],"resize":"shortest_side",'
        '"std":[0.2,0.2,0.2]},"sampling":{"frames":8,"mode":"uniform","stride_seconds":null,'
        '"times_seconds":null,"views":1}}'
    )
    text = "".join(f"{line}\n" for line in (*(f"{'0' * 64}  {n}" for n in sorted(files)), way))
    assert revision(files) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_manifest_cannot_be_edited_to_another_embedding_space(tmp_path: Path) -> None:
    """Verification notices a changed pooling, although every file is as it was."""
    document = write_artefact(tmp_path)
    document["pooling"] = "mean_then_normalize"
    write(tmp_path, document)
    with pytest.raises(ArtefactError, match="expected revision"):
        verify_files(tmp_path, load_manifest(tmp_path))
