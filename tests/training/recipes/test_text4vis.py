"""Text4Vis against the same thing in loops, from its first step to its artefact or its refusal."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import Tokenizer
from tests.training.recipes.test_frozen_classifiers import sentence_encoder
from tests.training.tiny import ARCHITECTURE, FRAMES, tiny_description
from training.errors import Refusal
from training.evaluate.artefact import PublishedModel
from training.evaluate.class_lists import ClassListError
from training.evaluate.closed_set import ClosedSetModel, with_own_classifier
from training.evaluate.model import Way
from training.evaluate.network_model import NetworkModel
from training.evaluate.zero_shot import zero_shot
from training.fine_tuning import fine_tune
from training.frozen_classifiers import (
    CLASSIFIER_FILE,
    ClassifierError,
    ClassifierKind,
    load_classifier,
    sentence_embeddings,
)
from training.models.endpoints import clip_end
from training.models.network import VideoCLIP, build
from training.publish import publish
from training.recipe import Batch
from training.recipes import text4vis
from training.recipes.text4vis import Text4Vis, Text4VisSettings, require_free_text
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

CLASSES = ("red star", "a drop", "of hearts")
KINDS: tuple[ClassifierKind, ...] = ("clip-text", "lda", "random-orthogonal", "random-normal")
HEADS = ("none", "t-trans", "token-t1d", "t1d")


def make(tokenizer: Tokenizer, **changes: Any) -> Text4Vis:
    """A recipe on a tiny network of the architecture that the settings ask for."""
    settings = Text4VisSettings(**changes)
    network = build({**ARCHITECTURE, **text4vis.architecture(settings)}, seed=1)
    recipe = text4vis.recipe(
        network,
        settings=settings,
        classes=CLASSES,
        encode=lambda texts: torch.from_numpy(tokenizer.encode(texts)[0]),
        templates=TEMPLATES["text4vis"],
        original=clip(),
        seed=0,
    )
    if recipe.examples_per_class:
        recipe.begin([batch(9, seed=5), batch(9, seed=6)])
    return recipe


def clip() -> dict[str, Tensor]:
    """CLIP's weights, which have no head."""
    return build({**ARCHITECTURE, "temporal": "none"}, seed=1).state_dict()


def batch(clips: int = 6, frames: int = 3, *, seed: int = 0) -> Batch:
    """Clips whose brightness tells their class, in a little noise."""
    labels = torch.arange(clips) % len(CLASSES)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clips, frames, 3, 40, 40, generator=generator)
    return Batch(0.3 * noise + labels.view(-1, 1, 1, 1, 1) - 1.0, labels=labels)


def train(recipe: Text4Vis, data: Batch, *, steps: int = 30) -> list[float]:
    """The loop's own steps on one batch; the losses."""
    step = Step(
        recipe,
        steps=steps,
        optimisation=OptimisationConfig(
            steps=steps, batch_size=len(data.frames), peak_learning_rate=2e-2, warmup_share=0.1
        ),
        regularisation=RegularisationConfig(),
        seed=0,
    )

    def same() -> Iterator[Batch]:
        while True:
            yield data

    return [report.loss for report in fine_tune(step, same()).reports]


def model_of(recipe: Text4Vis, tokenizer: Tokenizer) -> NetworkModel:
    """The recipe's network at both ends."""
    architecture = {**ARCHITECTURE, **text4vis.architecture(recipe.settings)}
    tuned = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    description = tiny_description()
    return NetworkModel(
        recipe.network,
        clip=clip_end(architecture, clip(), tuned),
        tuned=tuned,
        tokenizer=tokenizer,
        way=Way(
            sampling=description.sampling,
            preprocessing=description.preprocessing,
            pooling=text4vis.POOLING,
            template_set="text4vis",
        ),
        facts={},
    )


def slow_loss(network: VideoCLIP, rows: Tensor, data: Batch) -> float:
    """The loss in loops over clips, frames and classes."""
    assert data.labels is not None
    with torch.no_grad():
        clips = network.encode_frames(data.frames).double().numpy()
        scale = network.logit_scale.exp().item()
    losses = []
    for frames, label in zip(clips, data.labels.tolist(), strict=True):
        video = sum(frames) / len(frames)
        video = video / np.sqrt((video * video).sum())
        logits = [
            scale * float(video @ row) / float(np.sqrt((row * row).sum()))
            for row in rows.double().numpy()
        ]
        losses.append(np.log(sum(np.exp(x) for x in logits)) - logits[label])
    return float(np.mean(losses))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_loops(
    tokenizer: Tokenizer, kind: ClassifierKind, head: str
) -> None:
    """Every head with every classifier; the classifier's rows are unit vectors that stay."""
    recipe = make(tokenizer, classifier=kind, temporal_head=head)
    rows = recipe.classifier.rows
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(3))
    assert recipe(batch())["loss"].item() == pytest.approx(
        slow_loss(recipe.network, rows, batch()), rel=1e-4
    )
    assert not any("_rows" in name for name in (*recipe.trained(), *recipe.state_dict()))


def test_rows_of_any_length_count_as_directions() -> None:
    """Rows are normalised before they are used."""
    rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    losses = []
    for scaled in (rows, rows * torch.tensor([[1.0], [7.0], [0.1]])):
        recipe = Text4Vis(
            build({**ARCHITECTURE, "temporal": "none"}, seed=1),
            settings=Text4VisSettings(temporal_head="none"),
            classes=CLASSES,
            original=clip(),
            rows=scaled,
        )
        losses.append(float(recipe(batch())["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] == pytest.approx(slow_loss(recipe.network, rows, batch()), rel=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_only_the_visual_side_learns(tokenizer: Tokenizer, head: str) -> None:
    """The tower and the logit scale at a tenth of the rate, T-Trans at all of it, texts never."""
    recipe = make(tokenizer, temporal_head=head)
    factors = recipe.trained()
    expected = {
        f"network.{name}": 1.0 if name.startswith("visual.temporal_head.") else 0.1
        for name, _ in recipe.network.named_parameters()
        if name.startswith("visual.") or name == "logit_scale"
    }
    assert factors == expected
    assert (1.0 in factors.values()) == (head == "t-trans")


@pytest.mark.slow
def test_discriminants_see_clip_without_the_head(tokenizer: Tokenizer) -> None:
    """LDA's rows do not depend on the head, nor on what the network has learnt since."""
    plain = make(tokenizer, classifier="lda", temporal_head="none").classifier.rows
    for head in ("t-trans", "token-t1d", "t1d"):
        recipe = make(tokenizer, classifier="lda", temporal_head=head)
        torch.testing.assert_close(recipe.classifier.rows, plain, atol=1e-5, rtol=1e-4)
        before = recipe.network.temporal_head
        train(recipe, batch(), steps=2)
        recipe.begin([batch(9, seed=5), batch(9, seed=6)])
        torch.testing.assert_close(recipe.classifier.rows, plain, atol=1e-5, rtol=1e-4)
        assert recipe.network.temporal_head == before


def test_a_sentence_encoder_makes_the_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The rows are that model's embeddings of the class names, brought to the network's size."""
    encoder = str(sentence_encoder(tmp_path))
    recipe = make(tokenizer, classifier="sentences", sentence_encoder=encoder)
    expected = sentence_embeddings(encoder, CLASSES, size=16, seed=0)
    torch.testing.assert_close(recipe.classifier.rows, expected)
    with pytest.raises(Refusal, match="cannot be published"):
        require_free_text(recipe.settings)


def test_discriminants_ask_for_examples(tokenizer: Tokenizer) -> None:
    """As many of each class as the settings say; the other classifiers ask for none."""
    assert make(tokenizer, classifier="lda", lda_videos_per_class=7).examples_per_class == 7
    for kind in ("clip-text", "random-normal", "random-orthogonal"):
        assert make(tokenizer, classifier=kind).examples_per_class == 0


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_batch_is_learnt_by_heart(tokenizer: Tokenizer, head: str) -> None:
    """With every head the loss falls to a part of what it was, and the texts are untouched."""
    recipe = make(tokenizer, temporal_head=head, tower_factor=0.2)
    before = {n: t.clone() for n, t in recipe.network.state_dict().items()}
    losses = train(recipe, batch())
    assert losses[-1] < 0.3 * losses[0]
    for name, tensor in recipe.network.state_dict().items():
        if not name.startswith("visual.") and name != "logit_scale":
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_classifier_is_learnt(tokenizer: Tokenizer, kind: ClassifierKind) -> None:
    """Rows that know nothing can be learnt by heart, too, and are told apart afterwards."""
    recipe = make(tokenizer, classifier=kind, temporal_head="none", tower_factor=0.2)
    losses = train(recipe, batch())
    assert losses[-1] < 0.5 * losses[0]


def pictures(clips: int = 6) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[str]]:
    """uint8 clips of two views, and their labels in another spelling."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (clips, 2, FRAMES, 40, 40, 3)).astype(np.uint8)
    return frames, [("RedStar", "a_drop", "Of Hearts")[i % 3] for i in range(clips)]


def test_closed_set_accuracy_is_counted_in_a_loop(tokenizer: Tokenizer) -> None:
    """Mean of the views' features, cosine with every row, the nearest row's name."""
    recipe = make(tokenizer, classifier="random-normal", temporal_head="t-trans")
    frozen, model = recipe.classifier, model_of(recipe, tokenizer)
    model.set_clip_weight(0.0)
    frames, labels = pictures()
    meant = [CLASSES[("RedStar", "a_drop", "Of Hearts").index(label)] for label in labels]
    hits = 0
    for views, label in zip(frames, meant, strict=True):
        video = model.features(views[None])[0].mean(axis=0)
        cosines = [float(video @ row) / float(np.linalg.norm(video)) for row in frozen.rows.numpy()]
        hits += frozen.classes[int(np.argmax(cosines))] == label
    closed = ClosedSetModel(model, frozen)
    spelt = ("RedStar", "a_drop", "Of Hearts")
    found = zero_shot(
        closed.features(frames),
        closed.classifier(spelt),
        np.array([spelt.index(label) for label in labels]),
        pooling=closed.way.pooling,
        rule="mean_of_features",
    )
    assert found.top1 == pytest.approx(100 * hits / len(labels))
    assert found.videos == len(labels)


def test_a_run_s_own_rows_answer_for_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """What `keep` wrote is what a model of the run is asked with, by name; others are refused."""
    recipe = make(tokenizer, classifier="lda", temporal_head="none")
    recipe.keep(tmp_path)
    assert torch.equal(load_classifier(tmp_path / CLASSIFIER_FILE).rows, recipe.classifier.rows)
    model = with_own_classifier(model_of(recipe, tokenizer), tmp_path)
    assert isinstance(model, ClosedSetModel)
    rows = recipe.classifier.rows.numpy()
    np.testing.assert_array_equal(model.classifier(("a_drop", "RedStar")), rows[[1, 0]])
    assert model.facts["classifier"] == "lda"
    with pytest.raises(ClassListError, match="'a bird': none of the 3 classes"):
        model.classifier(("a drop", "a bird"))
    with pytest.raises(ClassifierError, match="3 classes and no sentences, such as 'a bird'"):
        model.sentences(("a bird",))


def test_a_run_with_clip_s_rows_is_asked_in_words(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Neither a kept text classifier nor a folder without one changes the model."""
    recipe = make(tokenizer, classifier="clip-text", temporal_head="none")
    model = model_of(recipe, tokenizer)
    assert with_own_classifier(model, tmp_path) is model
    recipe.keep(tmp_path)
    assert with_own_classifier(model, tmp_path) is model
    model.set_clip_weight(0.0)
    np.testing.assert_allclose(model.classifier(CLASSES), recipe.classifier.rows.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["lda", "random-normal", "random-orthogonal"])
def test_what_no_text_can_ask_is_not_published(kind: ClassifierKind) -> None:
    """One line that says why, and what can be done instead."""
    with pytest.raises(Refusal, match="no free text can be scored") as refused:
        require_free_text(Text4VisSettings(classifier=kind))
    assert "\n" not in str(refused.value)
    assert kind in str(refused.value)
    require_free_text(Text4VisSettings(classifier="clip-text"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": "sentences"}, "sentence_encoder: needed by"),
        ({"sentence_encoder": "somewhere"}, "and by nothing else"),
        ({"lda_videos_per_class": 1}, "lda_videos_per_class = 1: 2 or more"),
        ({"tower_factor": -0.1}, r"tower_factor = -0\.1: 0 or more"),
        ({"tower_factor": float("nan")}, "tower_factor = nan: 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    """The line names the field and the value."""
    with pytest.raises(Refusal, match=message):
        Text4VisSettings(**changes)


def test_clips_without_classes_are_refused(tokenizer: Tokenizer) -> None:
    """There is nothing to learn from them."""
    recipe = make(tokenizer, temporal_head="none")
    with pytest.raises(Refusal, match="Text4Vis needs them"):
        recipe(replace(batch(), labels=None))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["t-trans", "t1d"])
def test_a_trained_one_is_published_and_answers(
    tokenizer: Tokenizer, head: str, tmp_path: Path
) -> None:
    """The exported graphs, heads included, give the trained network's scores for free text."""
    recipe = make(tokenizer, temporal_head=head)
    train(recipe, batch(frames=FRAMES), steps=3)
    architecture = {**ARCHITECTURE, **text4vis.architecture(recipe.settings)}
    tuned = {n: t.detach().clone() for n, t in recipe.network.state_dict().items()}
    folder = publish(
        replace(
            tiny_description(),
            recipe="text4vis",
            architecture=architecture,
            pooling=text4vis.POOLING,
            template_set="text4vis",
            default_clip_weight=0.0,
            curve=(),
        ),
        clip=clip_end(architecture, clip(), tuned),
        tuned=tuned,
        store=tmp_path,
        real_clips=batch(2, FRAMES).frames.numpy(),
        real_texts=("a red star",),
    )
    served = PublishedModel(folder, clip_weight=0.0)
    model = model_of(recipe, tokenizer)
    model.set_clip_weight(0.0)
    frames, _ = pictures(2)
    np.testing.assert_allclose(
        served.embed(frames) @ served.classifier(("a bird",)).T,
        _unit_means(model, frames) @ model.classifier(("a bird",)).T,
        atol=1e-4,
    )


def _unit_means(model: NetworkModel, frames: Any) -> Any:
    """The service's vector of a video: the mean of its views' directions, made unit again."""
    views = model.features(frames)
    views = views / np.linalg.norm(views, axis=-1, keepdims=True)
    mean = views.mean(axis=1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)
