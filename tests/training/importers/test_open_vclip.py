"""Open-VCLIP's checkpoints: layout, prefixes, frozen text tower, and what the artefact gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.manifest import load_manifest
from tests.training.importers import authors
from tests.training.importers.authors import State, clip_weights, fine_tuned, read, unit
from training.evaluate.artefact import PublishedModel
from training.foreign_model import ImportRefused
from training.weights import WeightsError

MEDIA = ("photo", "video", "example", "demonstration")
DOING = ("using ", "doing ", "during ", "performing ", "practicing ")
WHO = ("", "a person ", *(f"a person {doing}" for doing in DOING))
TEMPLATES = [f"a {medium} of {who}{{}}." for medium in MEDIA for who in WHO]


def tuned() -> State:
    """Visual tower and logit scale are trained, the text tower is frozen."""
    return fine_tuned(trained=lambda name: name.startswith("visual.") or name == "logit_scale")


def model_state(weights: State, *, prefix: str = "model.") -> State:
    """Names as in the authors' files."""
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def save(path: Path, state: State, **beside: Any) -> Path:
    """A file of the released form, or with what a training checkpoint holds beside."""
    torch.save({"model_state": state, **beside}, path)
    return path


def neighbour_embeddings(clip: Any, frames: Tensor) -> Tensor:
    """Open-VCLIP, eq. 3, with the authors' zero blocks at the ends; (T, 3, S, S) -> (T, D)."""
    tower = clip.visual
    x = tower.conv1(frames).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], 1)
    x = tower.ln_pre(x + tower.positional_embedding)
    for block in tower.transformer.resblocks:
        attention = block.attn
        heads = attention.num_heads
        q, k, v = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(
            3, -1
        )
        none = torch.zeros_like(k[:1])
        out = []
        for t in range(len(x)):
            keys, values = (
                torch.cat([torch.cat([none, y, none])[t + offset] for offset in range(3)])
                for y in (k, v)
            )
            one, all_keys, all_values = (
                y.reshape(len(y), heads, -1).transpose(0, 1) for y in (q[t], keys, values)
            )
            scores = one @ all_keys.transpose(1, 2) / all_keys.shape[-1] ** 0.5
            out.append((scores.softmax(-1) @ all_values).transpose(0, 1).reshape(q[t].shape))
        x = x + attention.out_proj(torch.stack(out))
        x = x + block.mlp(block.ln_2(x))
    result: Tensor = tower.ln_post(x[:, 0]) @ tower.proj
    return result


@pytest.fixture(scope="module")
def artefact(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released form, imported and published by the command line."""
    path = save(tmp_path_factory.mktemp("open_vclip") / "swa_2_22.pth", model_state(tuned()))
    return authors.published("open_vclip", path, tiny_artefact)


@pytest.mark.slow
@pytest.mark.parametrize("clip_weight", [0.0, 0.5, 1.0])
def test_video_vectors_are_those_of_the_formula(artefact: Path, clip_weight: float) -> None:
    """Exported graphs at λ: the mean of unit frame vectors under neighbour attention."""
    frames = authors.pictures(8)
    clip = authors.plain(authors.at(clip_weight, tuned()))
    with torch.no_grad():
        expected = unit(neighbour_embeddings(clip, authors.pixels(frames))).mean(0)
    found = PublishedModel(artefact, clip_weight=clip_weight).embed(frames[None, None])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("clip_weight", [0.0, 1.0])
def test_classifiers_are_clips_at_every_weight(artefact: Path, clip_weight: float) -> None:
    """28 templates through the original text tower, as the authors' frozen classifier."""
    with torch.no_grad():
        expected = authors.classifier(authors.plain(clip_weights()), artefact, TEMPLATES)
    found = PublishedModel(artefact, clip_weight=clip_weight).classifier(authors.LABELS)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_manifest_says_how_the_authors_used_it(artefact: Path) -> None:
    """Neighbour attention, 3 clips of 8 frames, their resize, λ 0.5, where it came from."""
    manifest = load_manifest(artefact)
    assert manifest.recipe == "open_vclip"
    assert manifest.architecture["temporal"] == "neighbour"
    sampling = manifest.sampling
    assert (sampling.mode, sampling.frames, sampling.views) == ("strided", 8, 3)
    assert sampling.stride_seconds == 16 / 30
    assert manifest.preprocessing.interpolation == "bilinear_without_antialias"
    assert manifest.preprocessing.mean == authors.CLIP_MEAN
    assert manifest.pooling == "normalize_then_mean"
    assert manifest.template_set == "kinetics"
    assert manifest.default_clip_weight == 0.5
    assert not manifest.text_tower_tuned
    assert manifest.provenance["imported_from"]["file"] == "swa_2_22.pth"  # type: ignore[index, call-overload]
    scale = 0.5 * (tuned()["logit_scale"] + clip_weights()["logit_scale"])
    assert manifest.logit_scale == pytest.approx(float(scale.exp()), rel=1e-6)
    assert "frozen" in (artefact / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("prefix", ["model.", "module.model."])
def test_a_training_checkpoint_is_read_and_its_rest_is_named(
    tiny_artefact: Path, tmp_path: Path, prefix: str
) -> None:
    """The optimiser is not looked at, the raw model is left out, and both are said."""
    raw = model_state(clip_weights(), prefix=prefix.replace("model.", "raw_model."))
    path = save(
        tmp_path / "checkpoint_epoch_00022.pyth",
        {**model_state(tuned(), prefix=prefix), **raw},
        epoch=21,
        optimizer_state={"state": {0: {"step": 3}}, "param_groups": []},
        cfg="TRAIN:\n  ENABLE: True\n",
        scaler_state={},
    )
    imported = read("open_vclip", path, tiny_artefact)
    for name, tensor in tuned().items():
        torch.testing.assert_close(imported.tuned[name], tensor, atol=0, rtol=0)
    account = imported.account
    assert sum(name.startswith("raw_model.") for n in account.left_out.values() for name in n) == (
        len(raw)
    )
    lines = "\n".join(account.lines())
    assert "the original CLIP, kept beside" in lines
    assert "not looked at: epoch, optimizer_state, cfg, scaler_state" in lines


def test_rounding_in_the_frozen_tower_is_not_tuning(tiny_artefact: Path, tmp_path: Path) -> None:
    """A mean over epochs in fp16 differs in the last bits; CLIP's own weights are used."""
    state = {name: tensor.half() for name, tensor in model_state(tuned()).items()}
    imported = read("open_vclip", save(tmp_path / "a.pth", state), tiny_artefact)
    for name, tensor in clip_weights().items():
        if not name.startswith("visual.") and name != "logit_scale":
            assert torch.equal(imported.tuned[name], tensor), name
    assert imported.tuned["visual.proj"].dtype == torch.float32


def test_another_text_tower_is_refused(tiny_artefact: Path, tmp_path: Path) -> None:
    """Open-VCLIP freezes it, so the file was tuned from another CLIP than the one named."""
    path = save(tmp_path / "a.pth", model_state(fine_tuned()))
    with pytest.raises(ImportRefused, match=r"model\.\S+ is not that of --clip"):
        read("open_vclip", path, tiny_artefact)


def test_every_mismatch_is_listed(tiny_artefact: Path, tmp_path: Path) -> None:
    """Missing, unknown and misshapen names at once, unknown ones as they are in the file."""
    state = model_state(tuned())
    del state["model.visual.proj"]
    state["model.head.weight"] = torch.zeros(2)
    state["model.visual.ln_pre.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        read("open_vclip", save(tmp_path / "a.pth", state), tiny_artefact)
    assert "3 weights do not fit" in str(caught.value)
    for part in ("visual.proj is missing", "head.weight is unknown", "has shape (3,), not (32,)"):
        assert part in str(caught.value)


def test_a_larger_model_has_its_own_weight() -> None:
    """0.6 for ViT-L/14 is by its 24 layers."""
    from training.importers.open_vclip import _LARGE
    from training.models.network import build

    with torch.device("meta"):
        assert _LARGE in build("ViT-L-14-quickgelu").state_dict()
        assert _LARGE not in build("ViT-B-16-quickgelu").state_dict()
