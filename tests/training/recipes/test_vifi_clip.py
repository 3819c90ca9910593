"""ViFi-CLIP against the same thing in loops, and from its first step to its artefact."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.videoclip.manifest import load_manifest
from service.videoclip.pooling import pool
from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json
from tests.training.ranks import RANKS, run_on_two_ranks
from tests.training.recipes.learning import memorise
from tests.training.tiny import ARCHITECTURE, MERGES, real_clips, tiny_description
from training.errors import Refusal
from training.models.endpoints import clip_end
from training.models.network import VideoCLIP, build
from training.publish import publish
from training.recipe import Batch
from training.recipes import vifi_clip
from training.recipes.vifi_clip import PromptSettings, ViFiCLIP, ViFiCLIPSettings
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig
from training.weights import WeightsError

CLASSES = ("red star", "a drop", "of hearts")
TINY_PROMPTS = PromptSettings(vision=2, vision_depth=2, text=3, text_depth=2)
TEXT_ONLY = ("positional_embedding", "text_projection", "ln_final.", "transformer.")


def make(
    tokenizer: Tokenizer,
    *,
    settings: ViFiCLIPSettings | None = None,
    classes: tuple[str, ...] = CLASSES,
    templates: tuple[str, ...] = TEMPLATES["vifi-clip"],
    seed: int = 1,
) -> ViFiCLIP:
    """A recipe on a tiny network of the architecture that the settings ask for."""
    settings = settings or ViFiCLIPSettings()
    network = build({**ARCHITECTURE, **vifi_clip.architecture(settings)}, seed=seed)
    return vifi_clip.recipe(
        network,
        settings=settings,
        classes=classes,
        encode=lambda texts: torch.from_numpy(tokenizer.encode(texts)[0]),
        templates=templates,
        original=build(ARCHITECTURE, seed=1).state_dict(),
        seed=0,
    )


def batch(clips: int = 4, frames: int = 3, classes: int = 3) -> Batch:
    """Clips whose brightness tells their class, in a little noise."""
    labels = torch.arange(clips) % classes
    noise = torch.randn(clips, frames, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return Batch(0.2 * noise + labels.view(-1, 1, 1, 1, 1) - 1.0, labels=labels)


def slow_loss(
    network: VideoCLIP, token_ids: Tensor, data: Batch, targets: np.ndarray[Any, Any], fusion: str
) -> float:
    """The loss in loops over clips, frames and classes."""
    with torch.no_grad():
        frames = network.encode_frames(data.frames).double().numpy()
        texts = network.encode_text(token_ids).double().numpy()
    scale = float(network.logit_scale.detach().exp())

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    def entropy(logits: list[float], target: Any) -> float:
        normaliser = math.log(sum(math.exp(x) for x in logits))
        return -sum(float(t) * (x - normaliser) for t, x in zip(target, logits, strict=True))

    losses = []
    for clip, target in zip(frames, targets, strict=True):
        per_frame = [[scale * cosine(frame, text) for text in texts] for frame in clip]
        if fusion == "embedding":
            mean = sum(clip) / len(clip)
            losses.append(entropy([scale * cosine(mean, text) for text in texts], target))
        elif fusion == "decision":
            losses.append(entropy([float(x) for x in np.mean(per_frame, axis=0)], target))
        else:
            losses.append(float(np.mean([entropy(logits, target) for logits in per_frame])))
    return float(np.mean(losses))


@pytest.mark.parametrize("fusion", ["embedding", "decision", "image"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("clips", [1, 4])
def test_the_loss_is_that_of_the_loops(
    tokenizer: Tokenizer, fusion: Any, soft: bool, clips: int
) -> None:
    """All three fusions, with hard and soft labels, for one clip and for several."""
    recipe = make(tokenizer, settings=ViFiCLIPSettings(fusion=fusion))
    data = batch(clips)
    targets = np.eye(3)[np.arange(clips) % 3]
    if soft:
        targets = np.random.default_rng(0).dirichlet(np.ones(3), size=clips)
        data = Batch(data.frames, soft_labels=torch.tensor(targets, dtype=torch.float32))
    expected = slow_loss(recipe.network, recipe.token_ids, data, targets, fusion)
    assert float(recipe(data)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_one_class_costs_nothing(tokenizer: Tokenizer) -> None:
    """With a single class every clip is right, whatever was mixed: the loss is 0, not a NaN."""
    recipe = make(tokenizer, classes=("heart",))
    data = batch(clips=3, classes=1)
    assert float(recipe(data)["loss"].detach()) == pytest.approx(0.0, abs=1e-6)
    prepared = recipe.prepare(data, np.random.default_rng(0))
    assert float(recipe(prepared)["loss"].detach()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("fusion", ["embedding", "decision"])
def test_what_is_trained_is_what_is_served(tokenizer: Tokenizer, fusion: Any) -> None:
    """The loss's logits are products of the pooled clip, as the service pools, and unit texts."""
    settings = ViFiCLIPSettings(fusion=fusion)
    recipe = make(tokenizer, settings=settings, templates=TEMPLATES["motion-world"])
    data = batch()
    with torch.no_grad():
        frames = recipe.network.encode_frames(data.frames).numpy()
        logits = pool(frames, pooling=settings.pooling) @ recipe.classifier().numpy().T
        scaled = torch.from_numpy(logits) * recipe.network.logit_scale.exp()
    assert data.labels is not None
    expected = torch.nn.functional.cross_entropy(scaled, data.labels)
    torch.testing.assert_close(recipe(data)["loss"].detach(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({}, lambda name: name != "token_embedding.weight"),
        ({"train_token_embedding": True}, lambda name: True),  # noqa: ARG005
        ({"towers": "image"}, lambda name: name.startswith("visual.")),
        ({"towers": "text"}, lambda name: name.startswith(TEXT_ONLY)),
        (
            {"prompts": TINY_PROMPTS},
            lambda name: name.startswith(("prompts.", "visual.prompts.")),
        ),
    ],
)
def test_each_variant_trains_what_the_code_trains(
    tokenizer: Tokenizer, changes: dict[str, Any], learns: Any
) -> None:
    """The named weights get a gradient and change; all others are the same bits afterwards."""
    recipe = make(tokenizer, settings=ViFiCLIPSettings(**changes))
    before = {n: p.detach().clone() for n, p in recipe.named_parameters()}
    assert set(recipe.trained()) == {n for n in before if learns(n.removeprefix("network."))}
    memorise(recipe, batch(), steps=1, rate=3e-3)
    for name, parameter in recipe.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == (name in recipe.trained()), name


def test_texts_are_encoded_again_in_every_pass(tokenizer: Tokenizer) -> None:
    """Run at other weights the recipe gives the other network's loss, texts included."""
    recipe, other = make(tokenizer, seed=1), make(tokenizer, seed=2)
    weights = {n: p.detach() for n, p in other.named_parameters() if n in other.trained()}
    weights["network.token_embedding.weight"] = other.network.token_embedding.weight.detach()
    out: Any = torch.func.functional_call(recipe, weights, (batch(),))
    torch.testing.assert_close(out["loss"], other(batch())["loss"])
    assert float(out["loss"].detach()) != pytest.approx(float(recipe(batch())["loss"].detach()))


def test_released_targets_are_mixed_and_smoothed(tokenizer: Tokenizer) -> None:
    """By default a prepared batch has soft labels in place of hard ones, and mixed clips."""
    recipe = make(tokenizer)
    data = batch(6)
    prepared = recipe.prepare(data, np.random.default_rng(0))
    assert prepared.labels is None
    assert prepared.soft_labels is not None
    torch.testing.assert_close(prepared.soft_labels.sum(dim=1), torch.ones(6))
    assert float(prepared.soft_labels.min()) >= 0.1 / 3 - 1e-6
    assert not torch.equal(prepared.frames, data.frames)
    assert np.isfinite(float(recipe(prepared)["loss"].detach()))


def test_smoothing_without_mixing(tokenizer: Tokenizer) -> None:
    """Both α at 0 leave the clips alone and only smooth: 1 - 0.1 + 0.1/3 and 0.1/3."""
    recipe = make(tokenizer, settings=ViFiCLIPSettings(mixup_alpha=0.0, cutmix_alpha=0.0))
    data = batch(2)
    prepared = recipe.prepare(data, np.random.default_rng(0))
    assert torch.equal(prepared.frames, data.frames)
    expected = torch.full((2, 3), 0.1 / 3) + 0.9 * torch.eye(3)[:2]
    assert prepared.soft_labels is not None
    torch.testing.assert_close(prepared.soft_labels, expected)


def test_the_papers_objective_leaves_the_batch(tokenizer: Tokenizer) -> None:
    """As the paper has it, labels are hard and clips are whole."""
    recipe = make(tokenizer, settings=ViFiCLIPSettings(objective="paper"))
    data = batch()
    assert recipe.prepare(data, np.random.default_rng(0)) is data


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"towers": "image"},
        {"towers": "text"},
        {"fusion": "decision"},
        {"fusion": "image"},
        {"prompts": TINY_PROMPTS},
    ],
)
def test_it_memorises_a_batch(tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    """Every variant lowers its loss on a few clips, in a few steps."""
    recipe = make(tokenizer, settings=ViFiCLIPSettings(**changes))
    rate = 3e-2 if "prompts" in changes else 3e-3
    losses = memorise(recipe, batch(), steps=25, rate=rate)
    assert losses[-1] < 0.8 * losses[0]


def test_bf16_rounds_the_towers_and_not_the_logits(tokenizer: Tokenizer) -> None:
    """Under autocast the loss is float32 and near that without."""
    recipe = make(tokenizer)
    for fusion in ("embedding", "decision", "image"):
        recipe.settings = ViFiCLIPSettings(fusion=fusion)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = recipe(batch())["loss"]
        assert found.dtype == torch.float32
        assert float(found.detach()) == pytest.approx(
            float(recipe(batch())["loss"].detach()), rel=0.05
        )


@pytest.mark.parametrize("place", ["run", "artefact", "file"])
def test_prompts_begin_with_the_first_stage(
    tokenizer: Tokenizer, tmp_path: Path, place: str
) -> None:
    """Bridge and prompt: the towers are the first stage's, and no step changes them."""
    name = {"run": "tuned", "artefact": "weights_tuned", "file": "some"}[place]
    stage_one = build({**ARCHITECTURE, "temporal": "none"}, seed=7).state_dict()
    save_file(stage_one, tmp_path / f"{name}.safetensors")
    path = tmp_path / "some.safetensors" if place == "file" else tmp_path
    settings = ViFiCLIPSettings(prompts=TINY_PROMPTS, stage_one=path)
    recipe = make(tokenizer, settings=settings, templates=TEMPLATES["vifi-clip-prompts"])
    first = {n: p.detach().clone() for n, p in recipe.network.named_parameters()}
    memorise(recipe, batch(), steps=2, rate=3e-2)
    for weight, tensor in recipe.network.state_dict().items():
        prompt = weight.startswith(("prompts.", "visual.prompts."))
        assert torch.equal(tensor, first[weight]) != prompt, weight
        if not prompt:
            assert torch.equal(tensor, stage_one[weight]), weight


def test_a_first_stage_that_does_not_fit_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """An empty folder, and weights of another network, are refused by name."""
    settings = ViFiCLIPSettings(prompts=TINY_PROMPTS, stage_one=tmp_path)
    with pytest.raises(Refusal, match=r"no tuned\.safetensors and no weights_tuned\.safetensors"):
        make(tokenizer, settings=settings)
    wrong = build({**ARCHITECTURE, "embed_dim": 8}).state_dict()
    del wrong["ln_final.bias"]
    save_file(wrong, tmp_path / "tuned.safetensors")
    with pytest.raises(WeightsError, match=r"ln_final\.bias is missing.*visual\.proj has shape"):
        make(tokenizer, settings=settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup_alpha": -0.1}, "mixup_alpha = -0.1: 0 or more"),
        ({"cutmix_alpha": float("nan")}, "cutmix_alpha = nan: 0 or more"),
        ({"label_smoothing": 1.5}, "label_smoothing = 1.5: within 0 and 1"),
        ({"towers": "image", "train_token_embedding": True}, "the text tower is frozen"),
        ({"prompts": TINY_PROMPTS, "towers": "text"}, "only the prompts learn"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, Any], message: str) -> None:
    """Values out of range, and options that exclude each other, name themselves."""
    with pytest.raises(Refusal, match=message):
        ViFiCLIPSettings(**changes)


def test_a_set_without_classes_is_refused(tokenizer: Tokenizer) -> None:
    """There is nothing to learn from clips without classes."""
    with pytest.raises(Refusal, match="no classes"):
        make(tokenizer, classes=())
    with pytest.raises(Refusal, match="no classes"):
        make(tokenizer)(replace(batch(), labels=None))


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [None, TINY_PROMPTS])
def test_its_weights_publish(
    tokenizer: Tokenizer, tmp_path: Path, prompts: PromptSettings | None
) -> None:
    """Trained weights become an artefact: λ = 0 is the network, λ = 1 is CLIP with the prompts."""
    settings = ViFiCLIPSettings(prompts=prompts)
    template_set = "vifi-clip" if prompts is None else "vifi-clip-prompts"
    recipe = make(tokenizer, settings=settings, templates=TEMPLATES[template_set])
    architecture = {**ARCHITECTURE, **vifi_clip.architecture(settings)}
    clip = build({**ARCHITECTURE, "temporal": "none"}, seed=1).state_dict()
    memorise(recipe, batch(), steps=3, rate=3e-3)
    tuned = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    folder = publish(
        replace(
            tiny_description("vifi"),
            recipe="vifi_clip",
            architecture=architecture,
            pooling=settings.pooling,
            template_set=template_set,
        ),
        clip=clip_end(architecture, clip, tuned),
        tuned=tuned,
        store=tmp_path,
        real_clips=real_clips(),
        real_texts=("red star",),
        activate=False,
    )
    manifest = load_manifest(folder)
    assert manifest.pooling == "mean_then_normalize"
    assert manifest.text_tower_tuned == (prompts is None)
    ends = {name: load_file(folder / f"weights_{name}.safetensors") for name in ("clip", "tuned")}
    assert set(ends["clip"]) == set(ends["tuned"]) == set(tuned)
    for name, tensor in tuned.items():
        assert torch.equal(ends["tuned"][name], tensor), name
        assert torch.equal(ends["clip"][name], clip.get(name, tensor)), name


def _train_on_ranks(rank: int, folder: Path, world: int = 1) -> None:
    """Two released steps, mixing included, by `world` processes; rank 0 leaves the weights."""
    data = batch(8)
    rows = slice(rank * 8 // world, (rank + 1) * 8 // world)
    step = Step(
        make(Tokenizer(folder / "tokenizer.json", 24)),
        steps=2,
        # However many processes there are, the batch is computed in two parts. AdamW's epsilon is
        # above rounding, which else moves what has no gradient (the bias of an attention's keys).
        optimisation=OptimisationConfig(
            steps=2, batch_size=8, accumulate=2 // world, peak_learning_rate=1e-3, epsilon=1e-4
        ),
        regularisation=RegularisationConfig(interpolation_coefficient=0.5),
        seed=3,
    )
    for number in range(2):
        step(number, data.part(rows))
    if rank == 0:
        torch.save(step.network_state(step.weights.vector), folder / f"{world}.pt")


@pytest.mark.slow
def test_two_ranks_mix_as_one_process_mixes_two_parts(tmp_path: Path) -> None:
    """Released training on two gloo processes gives one process's weights, to 1e-5."""
    (tmp_path / "tokenizer.json").write_text(build_tokenizer_json(MERGES), encoding="utf-8")
    _train_on_ranks(0, tmp_path)
    run_on_two_ranks(_train_on_ranks, tmp_path, RANKS)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    start = make(Tokenizer(tmp_path / "tokenizer.json", 24)).network.state_dict()
    assert not torch.equal(one["visual.proj"], start["visual.proj"])
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0.0, msg=name)
