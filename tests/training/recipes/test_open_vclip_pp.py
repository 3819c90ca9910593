"""Open-VCLIP++'s loss against loops, in both passes and over several processes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json
from tests.training.ranks import run_on_two_ranks
from tests.training.tiny import ARCHITECTURE, FRAMES, MERGES, tiny_description
from training.errors import Refusal
from training.evaluate.artefact import PublishedModel
from training.fine_tuning import fine_tune
from training.models.network import VideoCLIP, build
from training.publish import publish
from training.recipe import Batch
from training.recipes import open_vclip_pp
from training.recipes.open_vclip_pp import OpenVCLIPPP, OpenVCLIPPPSettings
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

CLASSES = ("red star", "a drop", "of hearts")
CAPTIONS = ("the video shows a star", "a drop", "hearts that turn", "red", "of blue", "a star")
FILLER = "filler that nothing may be learnt from"


def make(tokenizer: Tokenizer, **changes: Any) -> OpenVCLIPPP:
    """A recipe on a tiny network of the architecture that the settings ask for."""
    settings = OpenVCLIPPPSettings(**changes)
    return open_vclip_pp.recipe(
        build({**ARCHITECTURE, **open_vclip_pp.architecture(settings)}, seed=1),
        settings=settings,
        classes=CLASSES,
        encode=lambda texts: torch.from_numpy(tokenizer.encode(texts)[0]),
        templates=("a video of {}.", "{}"),
        original={},
        seed=0,
    )


def batch(tokenizer: Tokenizer, clips: int = 6, *, captioned: str | None = None) -> Batch:
    """Clips whose brightness tells their class, with captions. captioned: "x" where there is one.

    The other rows are filler.
    """
    labels = torch.arange(clips) % len(CLASSES)
    noise = torch.randn(clips, 3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    there = [mark == "x" for mark in captioned or "x" * clips]
    texts = [CAPTIONS[i] if there[i] else FILLER for i in range(clips)]
    ids, _ = tokenizer.encode(texts)
    return Batch(
        0.3 * noise + labels.view(-1, 1, 1, 1, 1) - 1.0,
        labels=labels,
        captions=torch.from_numpy(ids),
        captioned=None if captioned is None else torch.tensor(there),
    )


def slow_caption_loss(
    network: VideoCLIP, data: Batch, *, scale: float, captioned: str | None = None
) -> float:
    """InfoNCE in loops over the captioned clips, in both directions."""
    assert data.captions is not None
    with torch.no_grad():
        clips = network.encode_frames(data.frames).double().numpy()
        sentences = network.encode_text(data.captions).double().numpy()
    videos, texts = [], []
    for i, (frames, text) in enumerate(zip(clips, sentences, strict=True)):
        if captioned is None or captioned[i] == "x":
            mean = sum(frame / np.linalg.norm(frame) for frame in frames) / len(frames)
            videos.append(mean / np.linalg.norm(mean))
            texts.append(text / np.linalg.norm(text))
    losses = []
    for i in range(len(videos)):
        rows = [scale * float(videos[i] @ text) for text in texts]
        columns = [scale * float(video @ texts[i]) for video in videos]
        for logits in (rows, columns):
            losses.append(np.log(sum(np.exp(x) for x in logits)) - logits[i])
    return float(np.mean(losses))


def slow_class_loss(recipe: OpenVCLIPPP, data: Batch) -> float:
    """Open-VCLIP's: cosine logits of each frame, averaged over the frames."""
    assert data.labels is not None
    network = recipe.network
    with torch.no_grad():
        clips = network.encode_frames(data.frames).double().numpy()
    scale, losses = network.logit_scale.exp().item(), []
    for frames, label in zip(clips, data.labels.tolist(), strict=True):
        logits = [
            float(np.mean([scale * float(f @ row) / np.linalg.norm(f) for f in frames]))
            for row in recipe.classifier.double().numpy()
        ]
        losses.append(np.log(sum(np.exp(x) for x in logits)) - logits[label])
    return float(np.mean(losses))


@pytest.mark.parametrize("captioned", [None, "xxxxxx", "x.x..x", ".....x", "......"])
@pytest.mark.parametrize("temperature", [None, 0.05])
def test_the_loss_is_that_of_the_loops(
    tokenizer: Tokenizer, captioned: str | None, temperature: float | None
) -> None:
    """Clips without a caption are no pair and no negative; without any pair nothing is added."""
    recipe = make(tokenizer, temperature=temperature)
    data = batch(tokenizer, captioned=captioned)
    scale = recipe.network.logit_scale.exp().item() if temperature is None else 1 / temperature
    expected = 0.0
    if captioned != "......":
        expected = slow_caption_loss(recipe.network, data, scale=scale, captioned=captioned)
    with torch.no_grad():
        found = {name: value.item() for name, value in recipe(data).items()}
    assert found["classes"] == pytest.approx(slow_class_loss(recipe, data), rel=1e-4)
    assert found["captions"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found["loss"] == pytest.approx(found["classes"] + 4.0 * found["captions"], rel=1e-5)
    assert found["captioned"] == pytest.approx((captioned or "xxxxxx").count("x") / 6)


def test_filler_changes_nothing(tokenizer: Tokenizer) -> None:
    """What stands in the row of a clip without a caption reaches neither loss nor gradient."""
    recipe = make(tokenizer, text="trained")
    gradients = []
    for filler in (0, 5):
        data = batch(tokenizer, captioned="xx.x..")
        assert data.captions is not None
        assert data.captioned is not None
        data.captions[~data.captioned] = filler
        recipe.zero_grad()
        recipe(data)["loss"].backward()
        gradients.append({n: p.grad for n, p in recipe.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_a_set_without_captions_is_open_vclip(tokenizer: Tokenizer) -> None:
    """The loss is the classes', and the log says that nothing was captioned."""
    recipe = make(tokenizer)
    with torch.no_grad():
        found = recipe(replace(batch(tokenizer), captions=None))
    assert found["captioned"] == found["captions"] == 0
    assert found["loss"] == found["classes"]


def test_one_pair_alone_costs_nothing(tokenizer: Tokenizer) -> None:
    """It has no negatives: loss 0, gradient 0, no NaN."""
    recipe = make(tokenizer)
    found = recipe(batch(tokenizer, clips=1))
    assert found["captions"].item() == 0
    found["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in recipe.parameters())


@pytest.mark.parametrize("text", ["frozen", "trained"])
def test_what_learns(tokenizer: Tokenizer, text: Any) -> None:
    """Visual tower and logit scale; the text tower gets gradients exactly if it is to learn."""
    recipe = make(tokenizer, text=text)
    names = {name for name, _ in recipe.network.named_parameters()}
    visual = {name for name in names if name.startswith("visual.")} | {"logit_scale"}
    expected = names if text == "trained" else visual
    assert recipe.trained() == {f"network.{name}": 1.0 for name in expected}
    recipe(batch(tokenizer))["loss"].backward()
    with_gradient = {n for n, p in recipe.network.named_parameters() if p.grad is not None}
    assert with_gradient == expected


def test_a_trained_text_tower_gets_the_gradient_of_the_captions(tokenizer: Tokenizer) -> None:
    """Numerically: the loss's change along a direction in the text tower."""
    recipe = make(tokenizer, text="trained").double()
    data = batch(tokenizer, captioned="xxx.xx")
    data = replace(data, frames=data.frames.double())
    recipe(data)["loss"].backward()
    weight = recipe.network.text_projection
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
    slope = float((weight.grad * direction).sum())
    values = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            weight.add_(direction, alpha=step)
            values.append(recipe(data)["loss"].item())
            weight.add_(direction, alpha=-step)
    assert slope == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-2)


def step_of(recipe: OpenVCLIPPP, *, steps: int = 1, coefficient: float = 0.5) -> Step:
    """The loop's step, with interpolated weights."""
    other = build(ARCHITECTURE, seed=2).state_dict()
    return Step(
        recipe,
        steps=steps,
        optimisation=OptimisationConfig(
            steps=steps, batch_size=6, peak_learning_rate=3e-3, warmup_share=0.1
        ),
        regularisation=RegularisationConfig(
            interpolation_coefficient=coefficient, interpolation_max=0.6
        ),
        seed=0,
        original={**recipe.network.state_dict(), "visual.proj": other["visual.proj"]},
    )


@pytest.mark.parametrize("both", [True, False])
def test_captions_in_one_pass_or_in_both(tokenizer: Tokenizer, both: bool) -> None:
    """The gradient is that of the loss at θ, and C times the interpolated weights' own loss.

    The latter has a caption part only if the settings say so.
    """
    alpha, C = 0.4, 0.5
    recipe = make(tokenizer, captions_in_interpolated_pass=both)
    data = batch(tokenizer, captioned="xx.xx.")
    theta = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    step = step_of(recipe, coefficient=C)
    _, mixed_loss = step.gradient(data, alpha=alpha)
    found = step.weights.views(step.weights.gradient)

    mixed = dict(theta)
    proj = build(ARCHITECTURE, seed=2).state_dict()["visual.proj"]
    mixed["visual.proj"] = alpha * proj + (1 - alpha) * theta["visual.proj"]
    expected: dict[str, Tensor] = {}
    for weights, factor, weight in ((theta, 1.0, 4.0), (mixed, C, 4.0 if both else 0.0)):
        slow = make(tokenizer, caption_weight=weight)
        slow.network.load_state_dict(weights)
        slow.requires_grad_(False)
        for name in slow.trained():
            slow.get_parameter(name).requires_grad_()
        loss = slow(data)["loss"]
        loss.backward()
        for name in slow.trained():
            gradient = slow.get_parameter(name).grad
            assert gradient is not None
            expected[name] = expected.get(name, torch.zeros(())) + factor * gradient
    assert mixed_loss is not None
    assert mixed_loss.item() == pytest.approx(loss.item(), rel=1e-4)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("text", ["frozen", "trained"])
def test_a_batch_is_learnt_by_heart(tokenizer: Tokenizer, text: Any) -> None:
    """Classes and captions; the text tower moves exactly if it is to learn."""
    recipe = make(tokenizer, text=text)
    before = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    data = batch(tokenizer, captioned="xxxxx.")

    def same() -> Iterator[Batch]:
        while True:
            yield data

    reports = fine_tune(step_of(recipe, steps=30), same()).reports
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].parts["captions"] < 0.6 * reports[0].parts["captions"]
    assert reports[0].parts["captioned"] == pytest.approx(5 / 6)
    moved = {n for n, t in recipe.network.state_dict().items() if not torch.equal(t, before[n])}
    assert any(name.startswith("visual.") for name in moved)
    assert any(name.startswith("transformer.") for name in moved) == (text == "trained")


# negatives, text, which clips have captions
SPREAD = (("all", "frozen", "x.xxx."), ("all", "trained", "xxx..."), ("own", "frozen", "x.xxx."))


def _rank(rank: int, folder: Path) -> None:
    """One of two processes: its half of each batch, and the gradient averaged over both."""
    tokenizer = Tokenizer(folder / "tokenizer.json", 24)
    for case, (negatives, text, marks) in enumerate(SPREAD):
        recipe = make(tokenizer, negatives=negatives, text=text)
        half = batch(tokenizer, captioned=marks).part(slice(3 * rank, 3 * rank + 3))
        found = recipe(half)
        found["loss"].backward()
        kept = {"captions": found["captions"].detach()}
        for name in recipe.trained():
            gradient = recipe.get_parameter(name).grad
            assert gradient is not None
            dist.all_reduce(gradient)
            kept[name] = gradient / 2
        torch.save(kept, folder / f"{case}-{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_whole_batch_s_negatives(tmp_path: Path) -> None:
    """Gathered, two halves give one process's loss and gradient; else each half its own.

    Also where one of the halves has no caption at all.
    """
    (tmp_path / "tokenizer.json").write_text(build_tokenizer_json(MERGES), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", 24)
    run_on_two_ranks(_rank, tmp_path)
    for case, (negatives, text, marks) in enumerate(SPREAD):
        whole = make(tokenizer, negatives=negatives, text=text)
        data = batch(tokenizer, captioned=marks)
        parts = [data, data]
        if negatives == "own":
            parts = [data.part(slice(0, 3)), data.part(slice(3, 6))]
        losses = [whole(part) for part in parts]
        ((losses[0]["loss"] + losses[1]["loss"]) / 2).backward()
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=True)
            expected = losses[rank]["captions"].item()
            assert found.pop("captions").item() == pytest.approx(expected, rel=1e-4)
            for name, gradient in found.items():
                own = whole.get_parameter(name).grad
                assert own is not None
                # Sums of another order: rounding grows with the largest, a mistake is far above it.
                allowed = max(1e-5, 1e-4 * float(own.abs().max()))
                torch.testing.assert_close(gradient, own, atol=allowed, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption_weight": -1.0}, r"caption_weight = -1\.0: 0 or more"),
        ({"caption_weight": float("nan")}, "caption_weight = nan: 0 or more"),
        ({"temperature": 0.0}, r"temperature = 0\.0: above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    """The line names the field and the value."""
    with pytest.raises(Refusal, match=message):
        OpenVCLIPPPSettings(**changes)


def test_clips_without_classes_are_refused(tokenizer: Tokenizer) -> None:
    """Open-VCLIP's part needs them."""
    with pytest.raises(Refusal, match="the training set has no classes"):
        make(tokenizer)(replace(batch(tokenizer), labels=None))


@pytest.mark.slow
def test_a_trained_one_is_published_and_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The exported graphs give the trained network's scores for free text."""
    recipe = make(tokenizer)
    clip = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    data = batch(tokenizer)
    fine_tune(step_of(recipe, steps=3), [data, data, data])
    tuned = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    folder = publish(
        replace(
            tiny_description(), recipe="open_vclip_pp", pooling=open_vclip_pp.POOLING, curve=()
        ),
        clip=clip,
        tuned=tuned,
        store=tmp_path,
        real_clips=torch.randn(1, FRAMES, 3, 40, 40).numpy(),
        real_texts=("a red star",),
    )
    served = PublishedModel(folder, clip_weight=0.0)
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, FRAMES, 40, 40, 3)).astype(np.uint8)
    with torch.no_grad():
        pixels = (torch.from_numpy(frames[:, 0]).float() / 255).permute(0, 1, 4, 2, 3)
        spec = tiny_description().preprocessing
        shape = (1, 1, 3, 1, 1)
        pixels = (pixels - torch.tensor(spec.mean).view(shape)) / torch.tensor(spec.std).view(shape)
        unit = torch.nn.functional.normalize(recipe.network.encode_frames(pixels), dim=-1)
    np.testing.assert_allclose(served.embed(frames), unit.mean(dim=1).numpy(), atol=1e-4)
