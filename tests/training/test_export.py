"""Exported graphs: what they hold, and that they compute what the network computes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from service.videoclip.interpolation import interpolate
from tests.training.tiny import ARCHITECTURE, FRAMES, real_clips, system, tiny_weights
from training import parity
from training.errors import Refusal
from training.export import export
from training.graphs import Weights, load_graph, wanted_weights
from training.models.network import build
from training.parity import (
    BATCHES,
    ONE_BATCH,
    ParityError,
    RealInputs,
    measure_parity,
    require_parity,
)

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="session")
def exported(tiny_artefact: Path) -> Path:
    """A folder with the graphs of the tiny architecture: an export takes ten seconds."""
    (folder,) = tiny_artefact.glob("tiny/*")
    return folder


def ends() -> tuple[Arrays, Arrays]:
    """CLIP's and the tuned weights as arrays."""
    clip, tuned = tiny_weights()
    return {n: t.numpy() for n, t in clip.items()}, {n: t.numpy() for n, t in tuned.items()}


def test_graphs_name_the_state_dict_and_hold_no_weights(exported: Path) -> None:
    """Together the graphs ask for every weight but the logit scale, by name and shape."""
    expected = {n: tuple(t.shape) for n, t in build(ARCHITECTURE).state_dict().items()}
    del expected["logit_scale"]
    found = {}
    for name in ("video_encoder.onnx", "text_encoder.onnx"):
        model = onnx.load(exported / name, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                found[tensor.name] = tuple(tensor.dims)
                assert not tensor.raw_data
                assert {e.key: e.value for e in tensor.external_data} == {"location": "weights.bin"}
        assert (exported / name).stat().st_size < 50_000
    assert found == expected


def test_inputs_and_outputs_have_the_agreed_names_and_sizes(exported: Path) -> None:
    """frames (clips, T, 3, S, S) -> frame_embeddings; token_ids (n, L) -> text_embeddings."""

    def shape(value: Any) -> list[int | str]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    video = onnx.load(exported / "video_encoder.onnx", load_external_data=False).graph
    text = onnx.load(exported / "text_encoder.onnx", load_external_data=False).graph
    assert [v.name for v in (*video.input, *video.output)] == ["frames", "frame_embeddings"]
    assert shape(video.input[0]) == ["clips", FRAMES, 3, 40, 40]
    assert shape(video.output[0])[1:] == [FRAMES, 16]
    assert [v.name for v in (*text.input, *text.output)] == ["token_ids", "text_embeddings"]
    assert all(isinstance(size, str) for size in shape(text.input[0]))


@pytest.mark.slow
def test_graphs_do_not_depend_on_weights_time_or_place(exported: Path, tmp_path: Path) -> None:
    """Weights that are all equal export to the same bytes: none is merged or remembered."""
    network = build(ARCHITECTURE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    export(network, tmp_path, frames_per_clip=FRAMES)
    assert len(list(tmp_path.iterdir())) == 4
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (exported / path.name).read_bytes(), path.name
        assert str(Path(__file__).parent.parent.parent).encode() not in path.read_bytes()
    names = wanted_weights(tmp_path / "video_encoder.onnx")
    assert len(names) == len(list(network.visual.parameters()))


def test_every_graph_agrees_with_the_network(exported: Path) -> None:
    """At λ = 0 for several batch sizes, at 0.5 and 1 for one, on random and real inputs."""
    clip, tuned = ends()
    measured = measure_parity(
        build(ARCHITECTURE),
        exported,
        clip=clip,
        tuned=tuned,
        frames_per_clip=FRAMES,
        real=RealInputs(clips=real_clips(), token_ids=np.array([[513, 1, 2, 516]])),
    )
    require_parity(measured)
    cases = {(p.graph, p.clip_weight, p.batch, p.inputs) for p in measured}
    assert len(cases) == len(measured) == 4 * (len(BATCHES) + 2 * len(ONE_BATCH)) * 2
    assert max(p.max_rel_error for p in measured) < 1e-5


@pytest.mark.parametrize("suffix", ["onnx", "ts"])
@pytest.mark.parametrize("clip_weight", [0.0, 0.123, 1.0])
def test_weights_may_be_freed_after_loading(
    exported: Path, suffix: str, clip_weight: float
) -> None:
    """The arrays that were fed may be overwritten as soon as the graph is loaded."""
    clip, tuned = ends()
    weights = {n: np.array(a) for n, a in interpolate(clip, tuned, clip_weight=clip_weight).items()}
    network = build(ARCHITECTURE)
    network.load_state_dict({n: torch.tensor(a) for n, a in weights.items()})
    graph = load_graph(
        exported / f"video_encoder.{suffix}",
        {n: a for n, a in weights.items() if n.startswith("visual.")},
    )
    for array in weights.values():
        array[...] = 0
    with torch.no_grad():
        expected = network.encode_frames(torch.from_numpy(real_clips())).numpy()
    np.testing.assert_allclose(graph(real_clips()), expected, atol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 11, 24])
def test_the_text_graph_runs_at_any_length(exported: Path, length: int) -> None:
    """From start and end alone to the whole context."""
    clip, _ = ends()
    graph = load_graph(exported / "text_encoder.onnx", clip)
    network = build(ARCHITECTURE, seed=1)
    ids = np.random.default_rng(0).integers(0, 500, (3, length))
    with torch.no_grad():
        expected = network.encode_text(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(graph(ids), expected, atol=1e-5)


def test_a_graph_that_differs_is_found(exported: Path, tmp_path: Path) -> None:
    """Two weights that trade their places in the graph are above the tolerance."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    swap_weights(tmp_path / "video_encoder.onnx")
    clip, tuned = ends()
    measured = measure_parity(
        build(ARCHITECTURE),
        tmp_path,
        clip=clip,
        tuned=tuned,
        frames_per_clip=FRAMES,
        real=RealInputs(clips=None, token_ids=None),
    )
    with pytest.raises(ParityError, match=r"video_encoder\.onnx at clip_weight"):
        require_parity(measured)


@pytest.mark.parametrize("wrong", [2, 12, 24])
def test_an_error_at_one_length_of_texts_is_found(
    exported: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """A text graph that is right at all lengths but one is above the tolerance."""

    def load(path: Path, weights: Weights) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        graph = load_graph(path, weights)
        factor = 1.01 if path.name == "text_encoder.onnx" else 1.0
        return lambda x: graph(x) * np.float32(factor if x.shape[1:] == (wrong,) else 1.0)

    monkeypatch.setattr(parity, "load_graph", load)
    clip, tuned = ends()
    measured = measure_parity(
        build(ARCHITECTURE),
        exported,
        clip=clip,
        tuned=tuned,
        frames_per_clip=FRAMES,
        real=RealInputs(clips=None, token_ids=None),
    )
    with pytest.raises(ParityError, match=r"tolerance of 1e-04: text_encoder\.onnx at [^;]*$"):
        require_parity(measured)


@pytest.mark.parametrize(("name", "frames"), [("frames", 0), ("t-trans", 78)])
def test_a_number_of_frames_that_cannot_be_is_refused(
    tmp_path: Path, name: str, frames: int
) -> None:
    """No frames, or more than T-Trans has positions for; nothing is written."""
    with pytest.raises(Refusal, match=f"frames: {frames} is not from 1 to"):
        export(build(system(name)), tmp_path, frames_per_clip=frames)
    assert not list(tmp_path.iterdir())


def test_missing_weights_are_named(exported: Path) -> None:
    """Feeding half of the weights is an error, not a run on zeros."""
    with pytest.raises(ValueError, match=r"visual\.proj"):
        load_graph(exported / "video_encoder.onnx", {})


def swap_weights(path: Path) -> None:
    """Sabotage: let two layers of an ONNX graph read each other's matrices."""
    model = onnx.load(path, load_external_data=False)
    names = [f"visual.transformer.resblocks.{i}.attn.in_proj_weight" for i in (0, 1)]
    other = {names[0]: names[1], names[1]: names[0]}
    for node in model.graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
    path.write_bytes(model.SerializeToString())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_real_sizes_agree(tmp_path: Path) -> None:
    """ViT-B/32 with random weights: both runtimes, all λ, within the tolerance."""
    network = build("ViT-B-32-quickgelu", seed=1)
    export(network, tmp_path, frames_per_clip=FRAMES)
    tuned = {n: t.numpy() for n, t in build("ViT-B-32-quickgelu", seed=2).state_dict().items()}
    clip = {n: t.numpy().copy() for n, t in network.state_dict().items()}
    measured = measure_parity(
        network,
        tmp_path,
        clip=clip,
        tuned=tuned,
        frames_per_clip=FRAMES,
        real=RealInputs(clips=None, token_ids=None),
    )
    require_parity(measured)
