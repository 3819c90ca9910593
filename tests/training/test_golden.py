"""Known outputs: published with every artefact, and added to those that were before."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from service.encode.device import CPU
from service.encode.golden import check
from service.encode.runtime import Model, Precision
from service.videoclip.golden import known_clip, known_text, read_golden
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import (
    GOLDEN_FILE,
    Manifest,
    describe_file,
    load_manifest,
    verify_files,
)
from tests.training.test_export import swap_weights
from tests.training.test_variants import evaluation_set, published
from tests.training.tiny import ARCHITECTURE, FRAMES, tiny_weights
from training.__main__ import main
from training.artefact import _write_manifest
from training.models.network import build
from training.rewrite_manifest import add_file, rewrite_manifest


def _without(artefact: Path, to: Path) -> tuple[Path, Manifest]:
    """A copy as it was published before there were known outputs."""
    folder = shutil.copytree(artefact, to / artefact.name)
    (folder / GOLDEN_FILE).unlink()
    manifest = load_manifest(artefact)
    files = {name: entry for name, entry in manifest.files.items() if name != GOLDEN_FILE}
    manifest = manifest.model_copy(update={"files": files})
    rewrite_manifest(folder, manifest)
    return folder, manifest


def test_what_is_published_is_what_the_network_gives(tiny_artefact: Path) -> None:
    """At both ends and the default λ, by torch, without any graph."""
    (folder,) = tiny_artefact.glob("tiny/*")
    found = read_golden(folder, load_manifest(folder))
    assert found is not None
    assert set(found.outputs) == {0.0, 0.4, 1.0}
    clip, tuned = tiny_weights()
    network = build(ARCHITECTURE)
    for weight, outputs in found.outputs.items():
        mixed = interpolate(
            {n: t.numpy() for n, t in clip.items()},
            {n: t.numpy() for n, t in tuned.items()},
            clip_weight=weight,
        )
        network.load_state_dict({n: torch.tensor(a) for n, a in mixed.items()})
        with torch.no_grad():
            video = network.encode_frames(torch.tensor(known_clip(frames=FRAMES, image_size=40)))
            text = network.encode_text(torch.tensor(known_text(context_length=24)))
        assert outputs.video == pytest.approx(video[0].numpy(), abs=1e-5)
        assert outputs.text == pytest.approx(text[0].numpy(), abs=1e-5)
    assert not np.allclose(found.outputs[0.0].video, found.outputs[1.0].video, atol=1e-2)


@pytest.mark.usefixtures("quick_export")
def test_of_graphs_in_fewer_bits_the_distance_is_published(tmp_path: Path) -> None:
    """Measured on the known input; the service's check passes with it, in each precision."""
    folder = published(tmp_path, bound=100.0, labelled=evaluation_set())
    manifest = load_manifest(folder)
    golden = read_golden(folder, manifest)
    assert golden is not None
    assert 0 < golden.errors["fp16"].video < golden.errors["int8"].video < 0.2
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    for precision in precisions:
        model = Model(
            folder, manifest=manifest, runtime="onnx", threads=1, device=CPU, precision=precision
        )
        for weight in golden.outputs:
            check(model.build(weight), manifest=manifest, precision=precision, published=golden)


def test_an_older_artefact_gets_what_publishing_writes(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes, the same revision and manifest; a second time it is refused."""
    (whole,) = tiny_artefact.glob("tiny/*")
    folder, _ = _without(whole, tmp_path)
    assert main(["golden", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / GOLDEN_FILE}\n"
    assert (folder / GOLDEN_FILE).read_bytes() == (whole / GOLDEN_FILE).read_bytes()
    texts = [(place / "manifest.json").read_text() for place in (folder, whole)]
    assert json.loads(texts[0]) == json.loads(texts[1])
    verify_files(folder, load_manifest(folder))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert main(["golden", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {folder / GOLDEN_FILE}: the artefact has known outputs already\n"


def test_a_graph_that_computes_something_else_gets_none(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hashes and its revision are right: nothing is written, and one line names the graph."""
    (whole,) = tiny_artefact.glob("tiny/*")
    folder, manifest = _without(whole, tmp_path)
    name = "video_encoder.onnx"
    swap_weights(folder / name)
    files = {**manifest.files, name: describe_file(folder / name)}
    _write_manifest(folder, manifest.model_copy(update={"files": files}), card="")
    before = (folder / "manifest.json").read_bytes()
    assert main(["golden", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: relative error ")
    assert error.endswith("on the known input, above the tolerance of 1e-04\n")
    assert error.count("\n") == 1
    assert (folder / "manifest.json").read_bytes() == before
    assert not (folder / GOLDEN_FILE).exists()


def test_only_what_decides_no_vector_can_be_added(tiny_artefact: Path, tmp_path: Path) -> None:
    """A file of the revision, and one that is listed, are refused."""
    (whole,) = tiny_artefact.glob("tiny/*")
    folder, manifest = _without(whole, tmp_path)
    for name in ("video_encoder.onnx", "MODEL_CARD.md", "video_encoder.int8.onnx"):
        with pytest.raises(ValueError, match=f"{name}: cannot be added to tiny@"):
            add_file(folder, manifest, name=name, content=b"other")
    verify_files(folder, load_manifest(folder))
