"""Graphs in fewer bits: what they compute, what they cost, and when they are published."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import ValidationError

from service.encode.device import CPU
from service.encode.runtime import Model
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import (
    VARIANT_FILES,
    ArtefactError,
    Manifest,
    VariantName,
    describe_file,
    load_manifest,
    verify_files,
)
from service.videoclip.number_formats import quantize
from tests.training.tiny import FRAMES, real_clips, tiny_description, tiny_weights
from training import artefact
from training.evaluate.artefact import PublishedModel
from training.evaluate.model_folder import ModelError, open_model
from training.graphs import load_graph, wanted_weights
from training.publish import publish
from training.select_lambda import EvaluationSet
from training.variant_losses import measure_variants
from training.variants import VariantError, in_float16, in_int8, write_variants

NAMES: tuple[VariantName, ...] = ("fp16", "int8")
Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def folder(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny artefact with both variants, which its manifest does not name."""
    (source,) = tiny_artefact.glob("tiny/*")
    copy = tmp_path_factory.mktemp("variants") / "artefact"
    shutil.copytree(source, copy)
    write_variants(copy)
    return copy


def weights_at(clip_weight: float) -> Arrays:
    """θ(λ) of the tiny artefact."""
    clip, tuned = tiny_weights()
    return interpolate(
        {n: t.numpy() for n, t in clip.items()},
        {n: t.numpy() for n, t in tuned.items()},
        clip_weight=clip_weight,
    )


def evaluation_set(*, seed: int = 0) -> EvaluationSet:
    """Twelve clips of noise and their labels, which mean nothing."""
    draw = np.random.default_rng(seed)
    return EvaluationSet(
        frames=draw.integers(0, 256, (12, FRAMES, 40, 40, 3), np.uint8),
        labels=draw.integers(0, 3, 12),
        classes=("a red square", "a green circle", "rain"),
    )


def cosines(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of vectors along the last axis."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    result: NDArray[np.float32] = (found * expected).sum(-1) / lengths
    return result


@pytest.mark.parametrize("clip_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("name", "least"), [("fp16", 0.999999), ("int8", 0.999)])
def test_one_graph_serves_every_lambda(
    folder: Path, name: VariantName, least: float, clip_weight: float
) -> None:
    """Fed with θ(λ) in float32 it gives nearly what the full graph gives."""
    weights = weights_at(clip_weight)
    clips = np.random.default_rng(0).standard_normal((2, FRAMES, 3, 40, 40), dtype=np.float32)
    ids = np.array([[513, 5, 6, 516], [513, 7, 516, 0]])
    inputs: list[NDArray[Any]] = [clips, ids]
    for file, value in zip(VARIANT_FILES[name], inputs, strict=True):
        found = load_graph(folder / file, weights)(value)
        expected = load_graph(folder / file.replace(f".{name}", ""), weights)(value)
        assert found.dtype == np.float32
        assert cosines(found, expected).min() > least
        assert np.abs(found - expected).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_graphs_hold_no_weights(folder: Path, name: VariantName) -> None:
    """They name the same weights in fewer bits, and in int8 a scale for each output channel."""
    for file in VARIANT_FILES[name]:
        assert (folder / file).stat().st_size < 50_000
        full = {w.name: w for w in wanted_weights(folder / file.replace(f".{name}", ""))}
        found = {w.name: w for w in wanted_weights(folder / file)}
        scales = {key for key in found if key.endswith(".scale")}
        assert set(found) - scales == set(full)
        for key in full:
            assert found[key].shape == full[key].shape
        if name == "fp16":
            assert {w.number_format for w in found.values()} == {"float16"}
            assert not scales
            continue
        matrices = {key.removesuffix(".scale") for key in scales}
        assert {key for key, w in found.items() if w.number_format == "int8"} == matrices
        assert {".".join(key.split(".")[-2:]) for key in matrices} == {
            "attn.in_proj_weight",
            "out_proj.weight",
            "c_fc.weight",
            "c_proj.weight",
        }
        for key in matrices:
            assert found[f"{key}.scale"].shape == (found[key].shape[0], 1)


def test_int8_does_not_depend_on_what_shares_the_batch(folder: Path) -> None:
    """A clip of large numbers beside it changes no bit of a clip's vectors; nor do other texts."""
    weights = weights_at(0.4)
    video = load_graph(folder / "video_encoder.int8.onnx", weights)
    text = load_graph(folder / "text_encoder.int8.onnx", weights)
    quiet = np.random.default_rng(0).standard_normal((1, FRAMES, 3, 40, 40), dtype=np.float32)
    both = np.concatenate([quiet, 100 * quiet[:, ::-1]])
    assert np.array_equal(video(both)[:1], video(quiet))
    ids = np.array([[513, 5, 6, 516], [513, 500, 400, 516], [513, 9, 9, 516]])
    assert np.array_equal(text(ids)[:1], text(ids[:1]))


def product_graph() -> onnx.ModelProto:
    """A linear layer: x (n, 3, 5) times a weight w (7, 5), transposed."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(7, 5))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["w"], ["matrix"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "matrix"], ["y"]),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 7])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


def test_an_int8_product_is_what_its_formula_says(tmp_path: Path) -> None:
    """Whole numbers from -127 to 127 on both sides, a step for each token and for each channel."""
    path = tmp_path / "product.onnx"
    path.write_bytes(in_int8(product_graph()).SerializeToString())
    draw = np.random.default_rng(1)
    weight = draw.standard_normal((7, 5)).astype(np.float32)
    x = draw.standard_normal((4, 3, 5)).astype(np.float32)
    x[1] *= 1e4
    x[2, 1] = 0
    found = load_graph(path, {"w": weight})(x)
    scale = np.abs(weight).max(axis=1) / 127
    step = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / 127, 1e-30)
    expected = (np.rint(x / step) @ np.rint(weight.T / scale)) * scale * step
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not found[2, 1].any()


def test_weights_are_quantised_as_onnx_runtime_does_it(tmp_path: Path) -> None:
    """Its own tool, on a graph that holds the weight, finds the same integers and scales."""
    weight = np.random.default_rng(2).standard_normal((7, 5)).astype(np.float32)
    weight[3] = 0
    model = product_graph()
    del model.graph.node[0]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight.T.copy(), "matrix"))
    (tmp_path / "full.onnx").write_bytes(model.SerializeToString())
    quantize_dynamic(
        tmp_path / "full.onnx",
        tmp_path / "int8.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    theirs = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    steps, scale = quantize(weight, scale_shape=(7, 1))
    assert np.array_equal(steps.T, theirs["matrix_quantized"])
    live = weight.any(axis=1)
    np.testing.assert_allclose(scale[live, 0], theirs["matrix_scale"][live], rtol=1e-6)


def test_a_graph_without_weights_to_quantise_is_refused() -> None:
    """Rather than written as it is, under a name that promises something."""
    model = product_graph()
    model.graph.node[1].op_type = "Add"
    with pytest.raises(VariantError, match="no linear layer to quantise"):
        in_int8(model)


def test_the_source_graph_stays_as_it_is(folder: Path) -> None:
    """Making a variant changes nothing of the model that it is made from."""
    model = onnx.load(folder / "video_encoder.onnx", load_external_data=False)
    before = model.SerializeToString()
    in_float16(model)
    in_int8(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("name", NAMES)
def test_the_service_runs_a_variant(folder: Path, tmp_path: Path, name: VariantName) -> None:
    """In the place of the full graphs, at any λ, with the weights of the artefact."""
    manifest = load_manifest(folder)
    clips = real_clips()
    full = Model(folder, manifest=manifest, runtime="onnx", threads=1, device=CPU)
    other = shutil.copytree(folder, tmp_path / "artefact")
    files = dict(manifest.files)
    for file in VARIANT_FILES[name]:
        plain = other / file.replace(f".{name}", "")
        (other / file).replace(plain)
        files[plain.name] = describe_file(plain)
    replaced = manifest.model_copy(update={"files": files})
    small = Model(other, manifest=replaced, runtime="onnx", threads=1, device=CPU)
    for clip_weight in (0.2, 1.0):
        found = small.build(clip_weight).video(clips)
        assert cosines(found, full.build(clip_weight).video(clips)).min() > 0.999


def test_losses_are_those_of_the_worst_lambda(folder: Path) -> None:
    """Counted over the sets again by hand, at both ends and at the default."""
    sets = {"a": evaluation_set(), "b": evaluation_set(seed=1)}
    lines: list[str] = []
    manifest = load_manifest(folder)
    found = measure_variants(folder, manifest, sets, bound=100.0, threads=1, report=lines.append)
    assert [variant.name for variant in found] == list(NAMES)
    for variant, line in zip(found, lines, strict=True):
        assert variant.clip_weights == (0.0, 0.4, 1.0)
        assert line.startswith(f"{variant.name}: loses at most ")
        for name, labelled in sets.items():
            losses = []
            for clip_weight in variant.clip_weights:
                rates = []
                for form in (None, variant.name):
                    model = PublishedModel(folder, clip_weight=clip_weight, variant=form, threads=1)
                    vectors = model.embed(labelled.frames[:, None])
                    guesses = (vectors @ model.classifier(labelled.classes).T).argmax(1)
                    rates.append(100 * float(np.mean(guesses == labelled.labels)))
                losses.append(rates[0] - rates[1])
            assert variant.top1_loss[name] == pytest.approx(max(losses))


def test_sets_with_views_are_measured_on_their_views(folder: Path) -> None:
    """Two equal views lose what one of them loses."""
    manifest = load_manifest(folder)
    one = evaluation_set()
    two = EvaluationSet(
        frames=np.stack([one.frames, one.frames], axis=1), labels=one.labels, classes=one.classes
    )
    found = [
        measure_variants(
            folder, manifest, {"a": s}, bound=100.0, clip_weights=(0.5,), report=lambda _: None
        )
        for s in (one, two)
    ]
    assert found[0] == found[1]


def sabotage(folder: Path, name: VariantName) -> None:
    """Turn the embeddings of a variant's video graph round."""
    path = folder / VARIANT_FILES[name][0]
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if o == "frame_embeddings" else o for o in node.output]
    model.graph.node.append(helper.make_node("Neg", ["before"], ["frame_embeddings"]))
    path.write_bytes(model.SerializeToString())


def certain(folder: Path) -> EvaluationSet:
    """Clips with the labels that the full graphs give them at the manifest's λ: 100 % right."""
    chosen = evaluation_set()
    model = PublishedModel(folder, threads=1)
    scores = model.embed(chosen.frames[:, None]) @ model.classifier(chosen.classes).T
    return EvaluationSet(chosen.frames, labels=scores.argmax(1), classes=chosen.classes)


def test_what_loses_too_much_is_left_out(folder: Path, tmp_path: Path) -> None:
    """The line says which variant, on which set, how much, and the bound."""
    other = shutil.copytree(folder, tmp_path / "artefact")
    sabotage(other, "int8")
    lines: list[str] = []
    found = measure_variants(
        other,
        load_manifest(other),
        {"certain": certain(other)},
        clip_weights=(0.4,),
        report=lines.append,
    )
    assert [variant.name for variant in found] == ["fp16"]
    assert lines[0] == "fp16: loses at most 0.00 points of top-1, on certain"
    assert lines[1].startswith("int8: loses at most ")
    assert lines[1].endswith("points of top-1, on certain: above the bound of 1, not published")


def test_weights_that_do_not_fit_into_float16_leave_it_out(folder: Path, tmp_path: Path) -> None:
    """The reason names the weight; int8 is not concerned."""
    from safetensors.numpy import load_file, save_file

    other = shutil.copytree(folder, tmp_path / "artefact")
    lines: list[str] = []
    manifest = load_manifest(other)
    files = dict(manifest.files)
    for end in ("clip", "tuned"):
        name = f"weights_{end}.safetensors"
        weights = load_file(other / name)
        weights["visual.positional_embedding"] *= 1e8
        save_file(weights, other / name)
        files[name] = describe_file(other / name)
    artefact._write_manifest(other, manifest.model_copy(update={"files": files}), card="")
    found = measure_variants(
        other, manifest, {"a": evaluation_set()}, bound=100.0, report=lines.append
    )
    assert [variant.name for variant in found] == ["int8"]
    assert "fp16: not published: " in lines[0]
    assert "visual.positional_embedding: values that do not fit into float16" in lines[0]


def test_without_a_set_nothing_is_measured(folder: Path) -> None:
    """And nothing is published, with one line that says so."""
    lines: list[str] = []
    assert measure_variants(folder, load_manifest(folder), {}, report=lines.append) == ()
    assert lines == ["variants: none is published, there is no evaluation set to measure them on"]
    with pytest.raises(ValueError, match="bound: -1 is below 0"):
        measure_variants(folder, load_manifest(folder), {}, bound=-1)


def published(store: Path, *, bound: float, labelled: EvaluationSet | None) -> Path:
    """The tiny weights, published with an evaluation set."""
    clip, tuned = tiny_weights()
    return publish(
        tiny_description(),
        clip=clip,
        tuned=tuned,
        store=store,
        evaluation_sets=None if labelled is None else {"noise": labelled},
        variant_bound=bound,
    )


@pytest.mark.usefixtures("quick_export")
def test_variants_are_published_with_their_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Listed, hashed, part of the revision, in the card; and the artefact is served as before."""
    plain = published(tmp_path, bound=100.0, labelled=None)
    path = published(tmp_path, bound=100.0, labelled=evaluation_set())
    assert path != plain
    assert not load_manifest(plain).variants
    assert "variants" not in (plain / "manifest.json").read_text()
    manifest = load_manifest(path)
    verify_files(path, manifest)
    assert [variant.name for variant in manifest.variants] == list(NAMES)
    for variant in manifest.variants:
        assert variant.bound == 100.0
        assert set(variant.top1_loss) == {"noise"}
        assert set(variant.files) <= set(manifest.files)
    assert "int8: loses at most" in capsys.readouterr().out
    assert "## In fewer bits" in (path / "MODEL_CARD.md").read_text()
    assert "## In fewer bits" not in (plain / "MODEL_CARD.md").read_text()
    clips = real_clips()
    for small, full in ((path, plain),):
        found = Model(
            small, manifest=load_manifest(small), runtime="onnx", threads=1, device=CPU
        ).build(0.4)
        expected = Model(
            full, manifest=load_manifest(full), runtime="onnx", threads=1, device=CPU
        ).build(0.4)
        assert np.array_equal(found.video(clips), expected.video(clips))
    (path / "text_encoder.int8.onnx").write_bytes(b"altered")
    with pytest.raises(ArtefactError, match=r"text_encoder\.int8\.onnx: expected \d+ bytes"):
        verify_files(path, manifest)


@pytest.mark.usefixtures("quick_export")
def test_a_variant_above_the_bound_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not published is not in the folder either."""

    def write(folder: Path, names: Sequence[VariantName]) -> None:
        write_variants(folder, names)
        for name in NAMES:
            sabotage(folder, name)

    plain = published(tmp_path, bound=0.0, labelled=None)
    monkeypatch.setattr(artefact, "write_variants", write)
    path = published(tmp_path / "other", bound=0.0, labelled=certain(plain))
    assert path.name == plain.name
    assert not load_manifest(path).variants
    assert {p.name for p in path.iterdir()} == {p.name for p in plain.iterdir()}


def test_a_variant_that_is_not_there_is_named(tiny_artefact: Path) -> None:
    """Asking an artefact for what it has not is one clear line; so is the other runtime."""
    (plain,) = tiny_artefact.glob("tiny/*")
    with pytest.raises(ArtefactError, match=r"video_encoder\.int8\.onnx: expected the variant"):
        PublishedModel(plain, variant="int8")
    with pytest.raises(ValueError, match="variant fp16: is run by onnx, not by torchscript"):
        PublishedModel(plain, variant="fp16", runtime="torchscript")


def test_evaluation_opens_a_variant(folder: Path) -> None:
    """The result says which graphs ran; torch runs none of them."""
    model = open_model(folder, variant="int8", threads=1)
    assert model.facts["run_by"] == "onnx, int8"
    with pytest.raises(ModelError, match="--variant int8: of an artefact's graphs"):
        open_model(folder, variant="int8", temporal="none")


VARIANT: dict[str, Any] = {
    "name": "int8",
    "files": list(VARIANT_FILES["int8"]),
    "clip_weights": [0.5],
    "top1_loss": {"a": 0.25},
    "bound": 1.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "int4"}, "fp16"),
        ({"files": ["video_encoder.onnx"]}, "are not those of the variant int8"),
        ({"top1_loss": {"a": 0.2, "b": 1.5}}, "1.5 on b is above the bound 1"),
        ({"top1_loss": {}}, "at least 1 item"),
        ({"clip_weights": []}, "at least 1 item"),
        ({"runtime": "torchscript"}, "onnx"),
        (None, r"video_encoder\.int8\.onnx: in variants, but not in files"),
    ],
)
def test_a_manifest_with_a_wrong_variant_is_refused(
    folder: Path, change: dict[str, Any] | None, message: str
) -> None:
    """Above its bound, with other files, unmeasured, or without its files."""
    document = load_manifest(folder).model_dump(mode="json")
    document["variants"] = [{**VARIANT, **(change or {})}]
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(document)


def test_files_of_a_variant_that_is_not_listed_are_refused(folder: Path) -> None:
    """No unmeasured graph lies in an artefact; and a variant is listed once."""
    document = load_manifest(folder).model_dump(mode="json")
    entry = next(iter(document["files"].values()))
    document["files"] |= dict.fromkeys(VARIANT_FILES["int8"], entry)
    with pytest.raises(ValidationError, match=r"video_encoder\.int8\.onnx: in files, but not in v"):
        Manifest.model_validate(document)
    document["variants"] = [VARIANT]
    assert Manifest.model_validate(document).variants[0].name == "int8"
    document["variants"] = [VARIANT, VARIANT]
    with pytest.raises(ValidationError, match="one is listed twice: int8, int8"):
        Manifest.model_validate(document)
