"""FitCLIP's two losses against loops, its teacher, its ranks, and its artefact."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import load_manifest
from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import Tokenizer
from tests.training.ranks import RANKS, run_on_two_ranks
from tests.training.recipes.learning import memorise
from tests.training.tiny import ARCHITECTURE, real_clips, tiny_description
from training.ensemble import clip_weight_of
from training.errors import Refusal
from training.losses import contrastive_loss, distillation_loss, pair_loss
from training.models.network import VideoCLIP, build
from training.publish import publish
from training.recipe import Batch
from training.recipes import fitclip
from training.recipes.fitclip import FitCLIP, FitCLIPSettings

Matrix = NDArray[np.float64]

CLASSES = ("red star", "a drop", "of hearts")
SIGMA = 0.05
PAPER = FitCLIPSettings(temperature=SIGMA, distillation_factor="paper")
END = ARCHITECTURE["text_cfg"]["vocab_size"] - 1


def tiny(seed: int) -> VideoCLIP:
    """A tiny CLIP that sees frames on their own."""
    return build({**ARCHITECTURE, "temporal": "none"}, seed=seed)


def make(settings: FitCLIPSettings = PAPER, *, student: int = 2, teacher: int = 1) -> FitCLIP:
    """A student that is not its teacher, so that there is something to learn from it."""
    return FitCLIP(tiny(student), settings=settings, original=tiny(teacher).state_dict())


def make_with_classes(
    tokenizer: Tokenizer, settings: FitCLIPSettings, templates: tuple[str, ...]
) -> FitCLIP:
    """The recipe as the loop makes it, with class names and sentences."""
    return fitclip.recipe(
        tiny(2),
        settings=settings,
        classes=CLASSES,
        encode=lambda texts: torch.from_numpy(tokenizer.encode(texts)[0]),
        templates=templates,
        original=tiny(1).state_dict(),
        seed=0,
    )


def clips(count: int, *, seed: int) -> Batch:
    """Random clips with random captions of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(count, 3, 3, 40, 40, generator=generator)
    captions = torch.randint(1, END - 1, (count, 7), generator=generator)
    for row in range(count):
        end = 2 + (row + seed) % 5
        captions[row, end] = END
        captions[row, end + 1 :] = 0
    return Batch(frames, captions=captions)


def both(labelled: int = 4, unlabelled: int = 3) -> Batch:
    """A step's batch: both sources."""
    return replace(clips(labelled, seed=1), unlabelled=clips(unlabelled, seed=2))


def slow_pair_loss(scores: Matrix) -> float:
    """Minus the logarithm of each pair's softmax share, over its row and over its column."""
    n = len(scores)
    total = 0.0
    for i in range(n):
        row = sum(math.exp(scores[i, j]) for j in range(n))
        column = sum(math.exp(scores[j, i]) for j in range(n))
        total -= math.log(math.exp(scores[i, i]) / row) / n
        total -= math.log(math.exp(scores[i, i]) / column) / n
    return total


def slow_distillation(student: Matrix, teacher: Matrix) -> float:
    """KL of each row's and each column's softmax, averaged over rows and over columns."""
    total = 0.0
    for s_rows, t_rows in ((student, teacher), (student.T, teacher.T)):
        for s, t in zip(s_rows, t_rows, strict=True):
            p = np.exp(t) / np.exp(t).sum()
            q = np.exp(s) / np.exp(s).sum()
            total += sum(p[k] * math.log(p[k] / q[k]) for k in range(len(s))) / len(s_rows)
    return total


def slow_scores(network: VideoCLIP, batch: Batch, *, sigma: float) -> Matrix:
    """Each video's and each caption's product, in loops over frames."""
    assert batch.captions is not None
    with torch.no_grad():
        frames = network.encode_frames(batch.frames).double().numpy()
        texts = network.encode_text(batch.captions).double().numpy()
    scores = np.zeros((len(frames), len(texts)))
    for i, clip in enumerate(frames):
        video = sum(frame / np.linalg.norm(frame) for frame in clip) / len(clip)
        for j, text in enumerate(texts):
            scores[i, j] = video @ text / np.linalg.norm(text) / sigma
    return scores


@given(st.integers(1, 6), st.integers(0, 1000))
def test_the_pair_loss_is_the_sum_of_both_directions(pairs: int, seed: int) -> None:
    """Eqs. 1 and 2 in loops; and twice CLIP's own loss, which averages the directions."""
    scores = np.random.default_rng(seed).normal(size=(pairs, pairs)) * 3
    assert float(pair_loss(torch.from_numpy(scores))) == pytest.approx(
        slow_pair_loss(scores), rel=1e-5, abs=1e-6
    )
    half = contrastive_loss(
        torch.from_numpy(scores), torch.eye(pairs).double(), logit_scale=torch.tensor(0.0)
    )
    assert float(pair_loss(torch.from_numpy(scores))) == pytest.approx(
        2 * float(half), rel=1e-5, abs=1e-6
    )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_the_distillation_loss_is_two_divergences(n: int, m: int, seed: int) -> None:
    """Eqs. 3 and 4 in loops, for any numbers of clips and texts; never negative."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(n, m)) * 3, rng.normal(size=(n, m)) * 3
    found = float(distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher)))
    assert found == pytest.approx(slow_distillation(student, teacher), rel=1e-4, abs=1e-5)
    assert found >= -1e-6


@pytest.mark.parametrize("factor", ["code", "paper"])
@pytest.mark.parametrize(("labelled", "unlabelled"), [(4, 3), (1, 1)])
def test_the_loss_is_eq_5(factor: Any, labelled: int, unlabelled: int) -> None:
    """λ of the distillation, times (1/σ)² as coded, and 1 - λ of the labelled loss, in loops."""
    weight = 0.2
    recipe = make(
        FitCLIPSettings(temperature=SIGMA, distillation_weight=weight, distillation_factor=factor)
    )
    batch = both(labelled, unlabelled)
    assert batch.unlabelled is not None
    pairs = slow_pair_loss(slow_scores(recipe.network, batch, sigma=SIGMA))
    distilled = slow_distillation(
        slow_scores(recipe.network, batch.unlabelled, sigma=SIGMA),
        slow_scores(tiny(1), batch.unlabelled, sigma=SIGMA),
    )
    found = recipe(batch)
    assert float(found["labelled"]) == pytest.approx(pairs, rel=1e-4, abs=1e-5)
    assert float(found["distillation"]) == pytest.approx(distilled, rel=1e-3, abs=1e-5)
    expected = (1 - weight) * pairs + weight * distilled * (400 if factor == "code" else 1)
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    """With CLIP's own weights the distillation loss is 0, and so is its gradient."""
    recipe = make(replace(PAPER, distillation_weight=1.0), student=1)
    out = recipe(Batch(both().frames, unlabelled=clips(3, seed=2)))
    assert float(out["distillation"]) == pytest.approx(0.0, abs=1e-6)
    assert "labelled" not in out
    out["loss"].backward()
    gradients = [p.grad for n, p in recipe.named_parameters() if n in recipe.trained()]
    # What is left is rounding: another student's gradient is near 200 here.
    assert all(float(g.abs().max()) < 1e-3 for g in gradients if g is not None)


def test_both_towers_learn_and_the_logit_scale_does_not() -> None:
    """Everything but the scale gets a gradient; the teacher never changes."""
    recipe = make()
    teacher = {n: p.clone() for n, p in recipe.teacher.named_parameters()}
    memorise(recipe, both(), steps=2, rate=1e-3)
    start = tiny(2).state_dict()
    for name, tensor in recipe.network.state_dict().items():
        assert torch.equal(tensor, start[name]) == (name == "logit_scale"), name
    for name, parameter in recipe.teacher.named_parameters():
        assert torch.equal(parameter, teacher[name])
        assert not parameter.requires_grad


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_it_memorises_a_batch(weight: float) -> None:
    """Labelled, mixed and unlabelled objectives all fall in a few steps."""
    settings = FitCLIPSettings(
        temperature=SIGMA, distillation_factor="paper", distillation_weight=weight
    )
    losses = memorise(make(settings), both(), steps=25, rate=1e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_rows_without_a_caption_count_for_nothing() -> None:
    """Filler texts are neither pairs nor negatives; a batch of nothing else is 0, not a NaN."""
    recipe = make()
    batch = clips(5, seed=1)
    known = torch.tensor([True, False, True, True, False])
    some = replace(batch, captioned=known, unlabelled=clips(3, seed=2))
    assert batch.captions is not None
    less = Batch(batch.frames[known], captions=batch.captions[known], unlabelled=clips(3, seed=2))
    torch.testing.assert_close(recipe(some)["loss"], recipe(less)["loss"])
    none = torch.zeros(5, dtype=torch.bool)
    empty = recipe(
        replace(batch, captioned=none, unlabelled=replace(clips(5, seed=2), captioned=none))
    )
    assert float(empty["loss"].detach()) == 0.0
    empty["loss"].backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in recipe.parameters())


def test_the_student_is_chosen_by_the_labelled_loss() -> None:
    """The validation loss is eqs. 1 and 2 of the batch, and asks for nothing unlabelled."""
    recipe = make()
    batch = clips(4, seed=1)
    expected = slow_pair_loss(slow_scores(recipe.network, batch, sigma=SIGMA))
    with torch.no_grad():
        found = float(recipe.validation_loss(batch))
    assert found == pytest.approx(expected, rel=1e-4)


def test_it_runs_at_other_weights() -> None:
    """The loss at weights that are passed in is theirs, with the same teacher."""
    recipe, other = make(student=2), make(student=3)
    weights = {n: p.detach() for n, p in other.named_parameters() if n in other.trained()}
    out: Any = torch.func.functional_call(recipe, weights, (both(),))
    torch.testing.assert_close(out["loss"], other(both())["loss"])


def test_classes_stand_in_for_captions(tokenizer: Tokenizer) -> None:
    """A set with classes is matched with their sentences, as with captions of the same words."""
    settings = replace(PAPER, texts="classes", unlabelled_texts="classes")
    recipe = make_with_classes(tokenizer, settings, ("a {}.",))
    labels = torch.tensor([2, 0, 1])
    frames = clips(3, seed=1).frames
    ids = torch.from_numpy(tokenizer.encode([f"a {name}." for name in CLASSES])[0])
    captioned = make()
    theirs = captioned(Batch(frames, captions=ids[labels], unlabelled=Batch(frames, captions=ids)))
    mine = recipe(Batch(frames, labels=labels, unlabelled=Batch(frames)))
    torch.testing.assert_close(mine, theirs)


def test_several_templates_give_their_mean(tokenizer: Tokenizer) -> None:
    """A class in several templates is the unit vector of their mean, as when it is served."""
    settings = replace(PAPER, texts="classes", unlabelled_texts="classes")
    recipe = make_with_classes(tokenizer, settings, TEMPLATES["motion-world"])
    with torch.no_grad():
        found = recipe._class_texts(recipe.network, torch.tensor([1]))[0]
        rows = []
        for template in TEMPLATES["motion-world"]:
            ids = tokenizer.encode([template.replace("{}", CLASSES[1])])[0]
            row = recipe.network.encode_text(torch.from_numpy(ids))[0]
            rows.append(row / row.norm())
    mean = torch.stack(rows).mean(dim=0)
    torch.testing.assert_close(found, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_fixed_prompts_replace_the_captions_of_unlabelled_clips(tokenizer: Tokenizer) -> None:
    """With sentences from the configuration, captions of the unlabelled clips are not needed."""
    sentences = ("red", "a star", "of red hearts", "drop")
    settings = replace(PAPER, unlabelled_texts="prompts", prompts=sentences)
    recipe = make_with_classes(tokenizer, settings, ("{}",))
    ids = torch.from_numpy(tokenizer.encode(list(sentences))[0])
    unlabelled = clips(3, seed=2)
    scores = [
        slow_scores(network, replace(unlabelled, captions=ids), sigma=SIGMA)
        for network in (recipe.network, tiny(1))
    ]
    found = recipe(replace(clips(2, seed=1), unlabelled=Batch(unlabelled.frames)))
    assert float(found["distillation"]) == pytest.approx(slow_distillation(*scores), rel=1e-3)


def test_bf16_rounds_the_towers_and_not_the_scores() -> None:
    """Under autocast the loss is float32 and near that without."""
    recipe = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = recipe(both())["loss"]
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(recipe(both())["loss"].detach()), rel=0.1)


def test_what_is_needed_follows_from_the_settings(tokenizer: Tokenizer) -> None:
    """Captions and unlabelled clips are asked for only where they are used."""
    assert make().needs_unlabelled
    assert make().needs_captions
    assert not make(FitCLIPSettings(distillation_weight=0.0)).needs_unlabelled
    settings = FitCLIPSettings(texts="classes")
    assert not make_with_classes(tokenizer, settings, ("{}",)).needs_captions


def test_a_batch_that_lacks_something_is_refused(tokenizer: Tokenizer) -> None:
    """No unlabelled clips, no captions, no classes: each is named."""
    batch = clips(2, seed=1)
    with pytest.raises(Refusal, match=r"data\.unlabelled"):
        make()(batch)
    with pytest.raises(Refusal, match="no captions"):
        make()(Batch(batch.frames))
    classes = make_with_classes(tokenizer, FitCLIPSettings(texts="classes"), ("{}",))
    with pytest.raises(Refusal, match="no classes"):
        classes(batch)
    with pytest.raises(Refusal, match="no classes"):
        fitclip.recipe(
            tiny(2),
            settings=FitCLIPSettings(texts="classes"),
            classes=(),
            encode=lambda texts: torch.zeros(len(texts), 3, dtype=torch.int64),
            templates=("{}",),
            original=tiny(1).state_dict(),
            seed=0,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature = 0.0: above 0"),
        ({"distillation_weight": 1.1}, "distillation_weight = 1.1: within 0 and 1"),
        ({"unlabelled_texts": "prompts"}, "prompts: needed by"),
        ({"prompts": ("a",)}, "prompts: needed by"),
        ({"student_share": -0.1}, "student_share = -0.1: within 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    """Values out of range, and options that exclude each other, name themselves."""
    with pytest.raises(Refusal, match=message):
        FitCLIPSettings(**changes)


@given(st.floats(0.0, 1.0))
def test_the_students_share_is_the_rest_of_clips(student_share: float) -> None:
    """FitCLIP's ensemble is this project's interpolation at λ = 1 - α, for any weights."""
    clip = np.array([0.0, 2.0], dtype=np.float32)
    student = np.array([1.0, -1.0], dtype=np.float32)
    theirs = (1 - student_share) * clip + student_share * student
    ours = interpolate({"w": clip}, {"w": student}, clip_weight=clip_weight_of(student_share))["w"]
    assert float(np.abs(ours - theirs).max()) < 1e-6


def test_the_published_share_is_lambda_0_6() -> None:
    """α = 0.4 of the student is 0.6 of CLIP, to the digit; the ends stay ends."""
    assert FitCLIPSettings().clip_weight == 0.6
    assert clip_weight_of(0.0) == 1.0
    assert clip_weight_of(1.0) == 0.0


@pytest.mark.slow
def test_its_weights_publish(tmp_path: Path) -> None:
    """The student becomes an artefact at λ = 0.6, whose logit scale is CLIP's at every λ."""
    recipe = make(student=1)
    memorise(recipe, both(), steps=3, rate=1e-3)
    clip = tiny(1).state_dict()
    tuned = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    folder = publish(
        replace(
            tiny_description("fitclip"),
            recipe="fitclip",
            architecture={**ARCHITECTURE, **fitclip.architecture(recipe.settings)},
            pooling=recipe.settings.pooling,
            default_clip_weight=recipe.settings.clip_weight,
        ),
        clip=clip,
        tuned=tuned,
        store=tmp_path,
        real_clips=real_clips(),
        real_texts=("red star",),
        activate=False,
    )
    manifest = load_manifest(folder)
    assert manifest.default_clip_weight == 0.6
    assert manifest.text_tower_tuned
    assert manifest.logit_scale == pytest.approx(float(clip["logit_scale"].exp()))
    for end, weights in (("clip", clip), ("tuned", tuned)):
        written = load_file(folder / f"weights_{end}.safetensors")
        assert all(torch.equal(written[n], t) for n, t in weights.items())


def _one_rank(rank: int, folder: Path) -> None:
    """Half of the batch on this rank; leave the loss, and the gradient averaged over ranks."""
    recipe = make()
    whole = both(labelled=4, unlabelled=6)
    out = recipe(whole_part(whole, rank=rank, world=RANKS))
    out["loss"].backward()
    for name, parameter in recipe.named_parameters():
        if name in recipe.trained():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
    if rank == 0:
        gradient = {
            n: p.grad / RANKS
            for n, p in recipe.named_parameters()
            if n in recipe.trained() and p.grad is not None
        }
        torch.save({"loss": out["loss"].detach(), "gradient": gradient}, folder / "found.pt")


def whole_part(batch: Batch, *, rank: int, world: int) -> Batch:
    """A rank's rows of both sources, which need not be of one size."""
    assert batch.unlabelled is not None

    def rows(part: Batch) -> Batch:
        share = len(part.frames) // world
        mine = slice(rank * share, (rank + 1) * share)
        known = torch.arange(len(part.frames)) != 1  # one filler row, on the first rank
        assert part.captions is not None
        return Batch(part.frames[mine], captions=part.captions[mine], captioned=known[mine])

    return replace(rows(batch), unlabelled=rows(batch.unlabelled))


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    """Two gloo processes with half of the clips each have one process's loss and gradient."""
    run_on_two_ranks(_one_rank, tmp_path)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    recipe = make()
    out = recipe(whole_part(both(labelled=4, unlabelled=6), rank=0, world=1))
    out["loss"].backward()
    torch.testing.assert_close(found["loss"], out["loss"].detach(), atol=1e-5, rtol=1e-5)
    own: dict[str, Tensor | None] = {
        n: p.grad for n, p in recipe.named_parameters() if n in recipe.trained()
    }
    assert set(found["gradient"]) == set(own)
    for name, gradient in own.items():
        assert gradient is not None
        torch.testing.assert_close(
            found["gradient"][name], gradient, atol=1e-5, rtol=1e-3, msg=name
        )
