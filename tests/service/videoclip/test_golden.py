"""Known inputs and the file of known outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from service.videoclip.golden import (
    GoldenOutputs,
    VariantError,
    golden_bytes,
    golden_weights,
    known_clip,
    known_text,
    read_golden,
)
from service.videoclip.manifest import (
    GOLDEN_FILE,
    VARIANT_FILES,
    ArtefactError,
    Manifest,
    Variant,
    load_manifest,
    revision_of,
)
from tests.service.small_artefact import known_outputs, publish, weights


@pytest.fixture
def artefact(tmp_path: Path) -> tuple[Path, Manifest]:
    """With known outputs."""
    manifest = publish(tmp_path, text_tower_tuned=True)
    return tmp_path / manifest.name / manifest.revision, manifest


def test_the_known_clip_tells_its_turns_apart() -> None:
    """Mirrored, upside down, backwards, or with red and blue exchanged it is another clip."""
    clip = known_clip(frames=4, image_size=6)
    assert clip.shape == (1, 4, 3, 6, 6)
    assert clip.dtype == np.float32
    for turned in (clip[:, ::-1], clip[:, :, ::-1], clip[..., ::-1, :], clip[..., ::-1]):
        assert np.abs(turned - clip).max() > 0.1
    assert np.abs(clip.swapaxes(3, 4) - clip).max() > 0.1


def test_the_known_text_ends_with_its_largest_id() -> None:
    """Where CLIP's text tower looks for the end."""
    assert known_text(context_length=77).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert known_text(context_length=3).tolist() == [[0, 1, 2]]


def test_known_inputs_never_change() -> None:
    """Artefacts keep what was computed from them: another clip needs another number."""
    clip = known_clip(frames=3, image_size=4)
    assert clip[0, 0, :, 0, 0].tolist() == [-2.25, -2.0, -1.75]
    assert clip[0, :, 1, 0, 0].tolist() == [-2.0, -1.75, -1.5]
    assert clip[0, 0, 1].ravel() == pytest.approx(np.linspace(-2, 2, 16), abs=1e-6)


@pytest.mark.parametrize(
    ("default", "expected"), [(0.6, (0, 0.6, 1)), (1.0, (0, 1)), (1 / 3, (0, 0.3333, 1))]
)
def test_of_which_lambda_outputs_are_kept(default: float, expected: tuple[float, ...]) -> None:
    """Both ends and the default, as it is rounded in a manifest."""
    assert golden_weights(default) == expected


def test_what_is_written_is_read(artefact: tuple[Path, Manifest]) -> None:
    """Bit by bit; the same outputs are the same bytes, and no part of the revision."""
    folder, manifest = artefact
    expected = known_outputs(weights(1), weights(2, logit_scale=40.0))
    found = read_golden(folder, manifest)
    assert found is not None
    assert set(found.outputs) == {0.0, 0.5, 1.0}
    for weight, outputs in expected.items():
        assert np.array_equal(found.outputs[weight].video, outputs.video)
        assert np.array_equal(found.outputs[weight].text, outputs.text)
    assert golden_bytes(GoldenOutputs(expected)) == (folder / GOLDEN_FILE).read_bytes()
    files = {name: entry for name, entry in manifest.files.items() if name != GOLDEN_FILE}
    way: dict[str, Any] = {
        "sampling": manifest.sampling,
        "preprocessing": manifest.preprocessing,
        "pooling": manifest.pooling,
    }
    assert revision_of(files, **way) == revision_of(manifest.files, **way) == manifest.revision


def test_an_artefact_may_have_none(tmp_path: Path) -> None:
    """As those that were published before there were any."""
    manifest = publish(tmp_path, golden={})
    folder = tmp_path / manifest.name / manifest.revision
    assert read_golden(folder, load_manifest(folder)) is None


def test_the_errors_of_variants_are_kept(artefact: tuple[Path, Manifest]) -> None:
    """And must be there for each variant that the manifest lists."""
    folder, manifest = artefact
    variant = Variant(
        name="int8",
        files=VARIANT_FILES["int8"],
        clip_weights=(0.5,),
        top1_loss={"a": 0.0},
        bound=1.0,
    )
    manifest = manifest.model_copy(update={"variants": (variant,)})
    with pytest.raises(ArtefactError, match=r"golden\.safetensors: expected error/int8, found no"):
        read_golden(folder, manifest)
    known = read_golden(folder, manifest.model_copy(update={"variants": ()}))
    assert known is not None
    errors = {"int8": VariantError(video=0.25, text=0.125)}
    (folder / GOLDEN_FILE).write_bytes(golden_bytes(GoldenOutputs(known.outputs, errors)))
    found = read_golden(folder, manifest)
    assert found is not None
    assert found.errors == errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video/0.5": None}, r"expected video/0\.5, found none"),
        ({"text/1": np.zeros(3, np.float32)}, r"expected text/1 as float32 \(8,\), found float32"),
        ({"text/1": np.zeros(8, np.float16)}, r"expected text/1 as float32 \(8,\), found float16"),
        ({"text/0": np.full(8, np.nan, np.float32)}, "expected finite text/0, found other values"),
    ],
)
def test_what_is_not_of_the_artefact_is_named(
    artefact: tuple[Path, Manifest], change: dict[str, Any], message: str
) -> None:
    """One line: the file, what was expected, what was found."""
    folder, manifest = artefact
    arrays = {**load_file(folder / GOLDEN_FILE), **change}
    save_file(
        {name: array for name, array in arrays.items() if array is not None},
        folder / GOLDEN_FILE,
        metadata={"known_inputs": "1"},
    )
    with pytest.raises(ArtefactError, match=rf"^golden\.safetensors: {message}"):
        read_golden(folder, manifest)


def test_other_known_inputs_are_refused(artefact: tuple[Path, Manifest]) -> None:
    """Of a later version: outputs of other inputs cannot be compared."""
    folder, manifest = artefact
    save_file(load_file(folder / GOLDEN_FILE), folder / GOLDEN_FILE, metadata={"known_inputs": "2"})
    with pytest.raises(ArtefactError, match="expected known inputs 1, found 2"):
        read_golden(folder, manifest)
    (folder / GOLDEN_FILE).write_bytes(b"cut")
    with pytest.raises(ArtefactError, match=r"golden\.safetensors: expected a safetensors file"):
        read_golden(folder, manifest)
