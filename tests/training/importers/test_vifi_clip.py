"""ViFi-CLIP's checkpoints: both stages, the frozen token embedding, yacs, deep prompts."""

import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.videoclip.manifest import load_manifest
from tests.training.importers import authors
from tests.training.importers.authors import CONTEXT, State, drawn, fine_tuned, read, unit
from training.evaluate.artefact import PublishedModel
from training.foreign_model import ImportRefused
from training.weights import WeightsError

MEAN = tuple(value / 255 for value in (123.675, 116.28, 103.53))
STD = tuple(value / 255 for value in (58.395, 57.12, 57.375))
LENGTH = 3
WIDTH = 32


def tuned() -> State:
    """Everything is trained but the token embedding."""
    return fine_tuned(trained=lambda name: name != "token_embedding.weight")


def model_state(weights: State) -> State:
    """Names of the authors' ViFiCLIP module; its buffers are of four class names, in fp16."""
    state = {}
    for name, tensor in weights.items():
        if name.startswith("visual."):
            state[f"module.image_encoder.{name.removeprefix('visual.')}"] = tensor
        elif name == "logit_scale":
            state["module.logit_scale"] = tensor
        elif name != "token_embedding.weight":
            state[f"module.text_encoder.{name}"] = tensor
    state["module.prompt_learner.complete_text_embeddings"] = drawn(4, CONTEXT, WIDTH).half()
    return state


def prompts() -> State:
    """Prompts of both towers, each two layers deep, in the authors' names."""
    block = "transformer.resblocks.1.VPT_shallow"
    return {
        "module.prompt_learner.ctx": drawn(LENGTH, WIDTH, seed=1),
        "module.image_encoder.VPT": drawn(LENGTH + 1, WIDTH, seed=2),
        f"module.text_encoder.{block}": drawn(LENGTH, WIDTH, seed=3),
        f"module.image_encoder.{block}": drawn(LENGTH + 1, WIDTH, seed=4),
    }


def prompted_state() -> State:
    """A checkpoint of the second stage: other buffers, and the prompts."""
    state = model_state(tuned())
    del state["module.prompt_learner.complete_text_embeddings"]
    state["module.prompt_learner.token_prefix"] = drawn(4, 1, WIDTH)
    state["module.prompt_learner.token_suffix"] = drawn(4, CONTEXT - 1 - LENGTH, WIDTH)
    return {**state, **prompts()}


def save(path: Path, state: State, **beside: Any) -> Path:
    """A file of the authors' form, without its settings."""
    torch.save({"model": state, "epoch": 10, "max_accuracy": 76.8, **beside}, path)
    return path


def through(block: Any, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A whole block of CLIP."""
    x = x + authors.attention(block, block.ln_1(x), mask=mask)
    result: Tensor = x + block.mlp(block.ln_2(x))
    return result


def prompted_frames(clip: Any, frames: Tensor, state: State) -> Tensor:
    """Vision prompts at the end of the tokens, without positions; new ones before layer 1."""
    tower, first = clip.visual, state["module.image_encoder.VPT"]
    x = tower.conv1(frames).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], 1) + tower.positional_embedding
    x = tower.ln_pre(torch.cat([x, first.expand(len(x), -1, -1)], 1))
    for number, block in enumerate(tower.transformer.resblocks):
        deep = state.get(f"module.image_encoder.transformer.resblocks.{number}.VPT_shallow")
        if deep is not None:
            x = torch.cat([x[:, : -len(deep)], deep.expand(len(x), -1, -1)], 1)
        x = through(block, x)
    result: Tensor = tower.ln_post(x[:, 0]) @ tower.proj
    return result


def prompted_texts(clip: Any, folder: Path, labels: Sequence[str], state: State) -> Tensor:
    """As the authors build them: "x x x label." with the x's embeddings replaced by the context."""
    ids = authors.token_ids(folder, [" ".join(["x"] * LENGTH) + f" {name}." for name in labels])
    x = clip.token_embedding(ids)
    x[:, 1 : 1 + LENGTH] = state["module.prompt_learner.ctx"]
    x = x + clip.positional_embedding
    mask = torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1)
    for number, block in enumerate(clip.transformer.resblocks):
        deep = state.get(f"module.text_encoder.transformer.resblocks.{number}.VPT_shallow")
        if deep is not None:
            x[:, 1 : 1 + LENGTH] = deep
        x = through(block, x, mask=mask)
    last = x[torch.arange(len(x)), ids.argmax(-1)]
    result: Tensor = clip.ln_final(last) @ clip.text_projection
    return result


@pytest.fixture(scope="module")
def prompted(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the second stage, imported and published; 4 frames keep it small."""
    path = save(tmp_path_factory.mktemp("vifi") / "hmdb.pth", prompted_state())
    return authors.published("vifi_clip", path, tiny_artefact, "--frames", "4")


@pytest.mark.slow
@pytest.mark.parametrize("clip_weight", [0.0, 0.5])
def test_prompted_vectors_are_those_of_the_formula(prompted: Path, clip_weight: float) -> None:
    """Exported graphs: the unit mean of frame vectors with deep prompts among the tokens."""
    frames = authors.pictures(4)
    clip = authors.plain(authors.at(clip_weight, tuned()))
    with torch.no_grad():
        pixels = authors.pixels(frames, mean=MEAN, std=STD)
        expected = unit(prompted_frames(clip, pixels, prompts()).mean(0))
    found = PublishedModel(prompted, clip_weight=clip_weight).embed(frames[None, None])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_prompted_labels_are_those_of_the_formula(prompted: Path) -> None:
    """Exported graphs: start, context, label and full stop, with deep prompts in their places."""
    with torch.no_grad():
        clip = authors.plain(tuned())
        expected = unit(prompted_texts(clip, prompted, authors.LABELS, prompts()))
    found = PublishedModel(prompted, clip_weight=0.0).classifier(authors.LABELS)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_manifest_of_prompts(prompted: Path) -> None:
    """Their number and depth, their template, ImageNet's statistics, 256 of 224, λ 0."""
    manifest = load_manifest(prompted)
    assert manifest.architecture["prompts"] == {
        "vision": LENGTH + 1, "vision_depth": 2, "text": LENGTH, "text_depth": 2
    }  # fmt: skip
    assert manifest.template_set == "vifi-clip-prompts"
    assert manifest.context_length == CONTEXT - LENGTH
    assert manifest.default_clip_weight == 0.0
    assert manifest.text_tower_tuned
    p = manifest.preprocessing
    assert (p.mean, p.std) == (MEAN, STD)
    assert (p.resize_size, p.interpolation) == (40 * 256 // 224, "bilinear_without_antialias")
    assert (manifest.sampling.mode, manifest.sampling.frames) == ("uniform", 4)
    assert manifest.pooling == "mean_then_normalize"


def test_the_first_stage_is_open_clips_network(tiny_artefact: Path, tmp_path: Path) -> None:
    """Names become open_clip's, the token embedding is CLIP's, buffers are left out and named."""
    path = save(tmp_path / "k400.pth", model_state(tuned()), optimizer={}, lr_scheduler={})
    imported = read("vifi_clip", path, tiny_artefact)
    assert set(imported.tuned) == set(tuned())
    for name, tensor in tuned().items():
        assert torch.equal(imported.tuned[name], tensor), name
    assert list(imported.account.left_out.values()) == [["prompt_learner.complete_text_embeddings"]]
    assert list(imported.account.from_clip.values()) == [["token_embedding.weight"]]
    assert imported.account.beside == ("epoch", "max_accuracy", "optimizer", "lr_scheduler")
    assert imported.description.template_set == "vifi-clip"
    assert imported.description.sampling.frames == 32
    assert imported.account.lines()[-1] == "frames: 32, not in the file; --frames sets it"


def test_settings_of_yacs_are_refused_with_what_to_do(
    tiny_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files hold a yacs object. Nothing is run, and the given command makes a usable file."""

    class CfgNode(dict[str, Any]):
        """As yacs has it: a dict with another name."""

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    yacs: Any = types.ModuleType("yacs.config")
    yacs.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", yacs)
    path = save(tmp_path / "best.pth", model_state(tuned()), config=CfgNode(AMP="O1"))
    with pytest.raises(
        WeightsError, match=r"it holds an object of yacs\.config\.CfgNode"
    ) as caught:
        read("vifi_clip", path, tiny_artefact)
    assert "\n" not in str(caught.value)
    command = re.search(r'python -c "(.*)"', str(caught.value))
    assert command is not None
    monkeypatch.chdir(tmp_path)
    exec(command[1], {})  # noqa: S102 - what the user is told to run in a sandbox
    assert torch.equal(
        read("vifi_clip", tmp_path / "weights.pt", tiny_artefact).tuned["visual.proj"],
        tuned()["visual.proj"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no ctx", r"VPT_shallow in the layers \[1\] of the text\.transformer"),
        ("no layer 1", r"VPT_shallow in the layers \[5\] of the visual\.transformer"),
        ("other length", r"VPT_shallow of the visual\.transformer has the shapes \[\(7, 32\)\]"),
        ("class contexts", r"prompt_learner\.ctx has shape \(4, 3, 32\)"),
    ],
)
def test_prompts_that_do_not_fit_each_other_are_refused(
    tiny_artefact: Path, tmp_path: Path, change: str, message: str
) -> None:
    """Each layer from 1 on has its own, all as long as the first; contexts are for all classes."""
    state = prompted_state()
    deep = "module.image_encoder.transformer.resblocks.1.VPT_shallow"
    if change == "no ctx":
        del state["module.prompt_learner.ctx"]
    elif change == "no layer 1":
        state[deep.replace("1", "5")] = state.pop(deep)
    elif change == "other length":
        state[deep] = drawn(7, WIDTH)
    else:
        state["module.prompt_learner.ctx"] = drawn(4, 3, WIDTH)
        del state["module.text_encoder.transformer.resblocks.1.VPT_shallow"]
    with pytest.raises((ImportRefused, WeightsError), match=message):
        read("vifi_clip", save(tmp_path / "a.pth", state), tiny_artefact)


def test_vision_prompts_alone_keep_the_sentence(tiny_artefact: Path, tmp_path: Path) -> None:
    """Without a learned context the text is "a photo of a {}." as in the first stage."""
    state = {**model_state(tuned()), "module.image_encoder.VPT": drawn(2, WIDTH)}
    imported = read("vifi_clip", save(tmp_path / "a.pth", state), tiny_artefact)
    assert imported.description.template_set == "vifi-clip"
    assert imported.description.architecture["prompts"] == {
        "vision": 2, "vision_depth": 1, "text": 0, "text_depth": 0
    }  # fmt: skip
    assert torch.equal(imported.clip["visual.prompts.context"], drawn(2, WIDTH))
