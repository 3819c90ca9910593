"""Text4Vis's checkpoints: no text tower, three kinds of temporal modelling, those refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.videoclip.manifest import load_manifest
from tests.training.importers import authors
from tests.training.importers.authors import State, clip_weights, drawn, fine_tuned, read, unit
from training.evaluate.artefact import PublishedModel
from training.foreign_model import ImportRefused
from training.models.network import build
from training.weights import WeightsError

DIMENSION = 16
WIDTH = 32
LAYERS = 2


def tuned() -> State:
    """What the file has of CLIP: the visual tower and the logit scale."""
    weights = fine_tuned(trained=lambda name: name.startswith("visual.") or name == "logit_scale")
    return {n: t for n, t in weights.items() if n.startswith("visual.") or n == "logit_scale"}


def fusion() -> State:
    """T-Trans in the authors' names: 77 positions, six blocks."""
    state = {"frame_position_embeddings.weight": drawn(77, DIMENSION, seed=70)}
    shapes = {
        "attn.in_proj_weight": (3 * DIMENSION, DIMENSION),
        "attn.in_proj_bias": (3 * DIMENSION,),
        "attn.out_proj.weight": (DIMENSION, DIMENSION),
        "attn.out_proj.bias": (DIMENSION,),
        "ln_1.weight": (DIMENSION,),
        "ln_1.bias": (DIMENSION,),
        "ln_2.weight": (DIMENSION,),
        "ln_2.bias": (DIMENSION,),
        "mlp.c_fc.weight": (4 * DIMENSION, DIMENSION),
        "mlp.c_fc.bias": (4 * DIMENSION,),
        "mlp.c_proj.weight": (DIMENSION, 4 * DIMENSION),
        "mlp.c_proj.bias": (DIMENSION,),
    }
    for block in range(6):
        for number, (name, shape) in enumerate(shapes.items()):
            seed = 100 * block + number
            state[f"transformer.resblocks.{block}.{name}"] = drawn(*shape, seed=seed)
    return state


def convolutions() -> State:
    """TokenT1D in the authors' names: a depthwise convolution in every block."""
    return {
        f"visual.transformer.resblocks.{n}.control_point.conv.weight": drawn(WIDTH, 1, 3, seed=n)
        for n in range(LAYERS)
    }


def model_state(*, head: bool) -> State:
    """Names of the authors' VideoCLIP module under DDP."""
    state = {f"module.{name}": tensor for name, tensor in tuned().items()}
    if head:
        state |= {f"module.fusion_model.{name}": tensor for name, tensor in fusion().items()}
    return state


def save(path: Path, state: State, **beside: Any) -> Path:
    """A file of the released form."""
    torch.save({"epoch": 30, "model_state_dict": state, "optimizer_state_dict": {}, **beside}, path)
    return path


def normalised(x: Tensor, state: State, name: str) -> Tensor:
    """Layer norm with the head's epsilon."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.layer_norm(x, (DIMENSION,), weight, bias, eps=1e-12)


def t_trans(frames: Tensor, state: State) -> Tensor:
    """The head of the paper on frame vectors (T, D): positions, six blocks, residual sum."""
    x = frames + state["frame_position_embeddings.weight"][: len(frames)]
    for number in range(6):
        block = {
            name.removeprefix(f"transformer.resblocks.{number}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"transformer.resblocks.{number}.")
        }
        attention = nn.MultiheadAttention(DIMENSION, num_heads=1)
        attention.load_state_dict(
            {n.removeprefix("attn."): t for n, t in block.items() if n.startswith("attn.")}
        )
        y = normalised(x, block, "ln_1")
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.linear(normalised(x, block, "ln_2"), block["mlp.c_fc.weight"], block["mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)
        x = x + F.linear(y, block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
    return frames + x


def token_t1d(clip: Any, frames: Tensor, state: State) -> Tensor:
    """The tower with a convolution of the class token over time, twice in every block."""
    tower = clip.visual
    x = tower.conv1(frames).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], 1)
    x = tower.ln_pre(x + tower.positional_embedding)
    for number, block in enumerate(tower.transformer.resblocks):
        kernel = state[f"visual.transformer.resblocks.{number}.control_point.conv.weight"]
        for half in ("attention", "mlp"):
            first = F.conv1d(x[:, 0].T[None], kernel, padding=1, groups=WIDTH)[0].T
            x = torch.cat([first[:, None], x[:, 1:]], 1)
            if half == "attention":
                x = x + authors.attention(block, block.ln_1(x))
            else:
                x = x + block.mlp(block.ln_2(x))
    result: Tensor = tower.ln_post(x[:, 0]) @ tower.proj
    return result


@pytest.fixture(scope="module")
def artefact(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with T-Trans, imported and published by the command line; 4 frames."""
    path = tmp_path_factory.mktemp("text4vis") / "k400-vitb-16-f8.pt"
    save(path, model_state(head=True))
    return authors.published("text4vis", path, tiny_artefact, "--frames", "4")


@pytest.mark.slow
def test_video_vectors_with_t_trans_are_those_of_the_formula(artefact: Path) -> None:
    """Exported graphs: frame vectors through the head, averaged, normalised."""
    frames = authors.pictures(4)
    clip = authors.plain({**clip_weights(), **tuned()})
    with torch.no_grad():
        vectors = clip.encode_image(authors.pixels(frames))
        expected = unit(t_trans(vectors, fusion()).mean(0))
    found = PublishedModel(artefact).embed(frames[None, None])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_at_clips_end_the_head_changes_nothing(artefact: Path) -> None:
    """λ = 1 is CLIP: the unit mean of its frame vectors."""
    frames = authors.pictures(4)
    with torch.no_grad():
        vectors = authors.plain(clip_weights()).encode_image(authors.pixels(frames))
        expected = unit(vectors.mean(0))
    found = PublishedModel(artefact, clip_weight=1.0).embed(frames[None, None])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_classifiers_are_clips(artefact: Path) -> None:
    """One sentence through CLIP's text tower, which the file lacks."""
    with torch.no_grad():
        clip = authors.plain(clip_weights())
        expected = authors.classifier(clip, artefact, ["a video of a person {}."])
    found = PublishedModel(artefact).classifier(authors.LABELS)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_manifest_says_how_the_authors_used_it(artefact: Path) -> None:
    """First frames of segments, 256 of 224 bilinear, λ 0, the head, what came from CLIP."""
    manifest = load_manifest(artefact)
    assert (manifest.sampling.mode, manifest.sampling.frames) == ("segment_starts", 4)
    p = manifest.preprocessing
    assert (p.resize_size, p.interpolation) == (40 * 256 // 224, "bilinear")
    assert p.mean == authors.CLIP_MEAN
    assert manifest.pooling == "mean_then_normalize"
    assert manifest.template_set == "text4vis"
    assert manifest.default_clip_weight == 0.0
    assert manifest.architecture["temporal_head"] == "t-trans"
    assert not manifest.text_tower_tuned
    assert manifest.logit_scale == pytest.approx(float(tuned()["logit_scale"].exp()), rel=1e-6)
    card = (artefact / "MODEL_CARD.md").read_text()
    assert "taken from CLIP" in card
    assert "optimizer_state_dict" in card


def test_token_t1d_is_that_of_the_formula(tiny_artefact: Path, tmp_path: Path) -> None:
    """The network with the imported weights; every `control_point.conv.weight` has its place."""
    path = save(tmp_path / "a.pt", {**model_state(head=False), **ddp(convolutions())})
    imported = read("text4vis", path, tiny_artefact)
    assert imported.description.architecture["temporal_head"] == "token-t1d"
    network = build(imported.description.architecture)
    network.load_state_dict(imported.tuned, strict=True)
    frames = authors.pixels(authors.pictures(4))
    with torch.no_grad():
        clip = authors.plain({**clip_weights(), **tuned()})
        expected = token_t1d(clip, frames, convolutions())
        found = network.encode_frames(frames[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def ddp(state: State) -> State:
    """The prefix of distributed training."""
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_without_a_head_and_prefix_it_is_the_mean(
    tiny_artefact: Path, tmp_path: Path, prefix: str
) -> None:
    """TAP: plain CLIP names; every weight of the text tower is CLIP's, and listed."""
    state = {f"{prefix}{name}": tensor for name, tensor in tuned().items()}
    imported = read("text4vis", save(tmp_path / "a.pt", state), tiny_artefact)
    assert imported.description.architecture["temporal_head"] == "none"
    for name, tensor in clip_weights().items():
        assert torch.equal(imported.tuned[name], tuned().get(name, tensor)), name
    (filled,) = imported.account.from_clip.values()
    assert set(filled) == set(clip_weights()) - set(tuned())


def test_the_head_of_older_files_lies_beside(tiny_artefact: Path, tmp_path: Path) -> None:
    """`fusion_model_state_dict` is joined, with or without `module.`; it is not ignored."""
    path = save(tmp_path / "a.pt", model_state(head=False), fusion_model_state_dict=ddp(fusion()))
    imported = read("text4vis", path, tiny_artefact)
    for name, tensor in fusion().items():
        assert torch.equal(imported.tuned[f"visual.temporal_head.{name}"], tensor), name
    assert imported.account.beside == ("epoch", "optimizer_state_dict")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.transformer.resblocks.0.net.ln_1.weight", r"temporal shift module \(TSM\)"),
        ("visual.layer1.0.conv1.net.weight", r"temporal shift module \(TSM\)"),
        ("visual.layer1.0.conv1.weight", "ResNet"),
        ("visual.attnpool.positional_embedding", "ResNet"),
        ("visual.time_embedding", "joint space-time attention"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tiny_artefact: Path, tmp_path: Path, name: str, message: str
) -> None:
    """The line names the weight, what it belongs to, and that it is not supported."""
    path = save(tmp_path / "a.pt", ddp({**tuned(), name: torch.zeros(2)}))
    with pytest.raises(ImportRefused, match=rf"{name} is of .*{message}.*not supported"):
        read("text4vis", path, tiny_artefact)


def test_two_heads_are_refused(tiny_artefact: Path, tmp_path: Path) -> None:
    """T-Trans over TokenT1D is nothing that was published."""
    path = save(tmp_path / "a.pt", {**model_state(head=True), **ddp(convolutions())})
    with pytest.raises(ImportRefused, match="both T-Trans"):
        read("text4vis", path, tiny_artefact)


def test_a_block_that_is_missing_is_named(tiny_artefact: Path, tmp_path: Path) -> None:
    """Half a head is never completed with random numbers."""
    state = model_state(head=True)
    del state["module.fusion_model.transformer.resblocks.5.ln_2.bias"]
    with pytest.raises(WeightsError, match=r"temporal_head\.transformer\.resblocks\.5\.ln_2\.bias"):
        read("text4vis", save(tmp_path / "a.pt", state), tiny_artefact)


def test_more_frames_than_positions_are_refused(tiny_artefact: Path, tmp_path: Path) -> None:
    """T-Trans has 77."""
    path = save(tmp_path / "a.pt", model_state(head=True))
    with pytest.raises(ImportRefused, match="--frames 78: T-Trans has positions for 77 frames"):
        read("text4vis", path, tiny_artefact, frames=78)


@pytest.mark.parametrize(
    ("name", "frames", "source"),
    [
        ("k400-vitb-16-f16.pt", 16, "from the file's name"),
        ("k400-vitb-32-f8.pt", 8, "from the file's name"),
        ("k400-vitl-14-336-f32.pt", 32, "from the file's name"),
        ("best.pt", 8, "not in the file"),
        ("buff16.pt", 8, "not in the file"),
    ],
)
def test_frames_are_those_of_the_name(
    tiny_artefact: Path, tmp_path: Path, name: str, frames: int, source: str
) -> None:
    """The account says where the number is from; a number that the user sets needs no words."""
    path = save(tmp_path / name, model_state(head=True))
    imported = read("text4vis", path, tiny_artefact)
    assert imported.description.sampling.frames == frames
    line = f"frames: {frames}, {source}; --frames sets it"
    assert imported.account.lines()[-1] == line
    assert line in imported.description.card
    told = read("text4vis", path, tiny_artefact, frames=4)
    assert told.description.sampling.frames == 4
    assert not any(line.startswith("frames") for line in told.account.lines())
