"""Measure plans: score the parts of each, at every λ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from service.videoclip.pooling import unit
from training.evaluate.accuracy import Accuracy
from training.evaluate.base_to_novel import harmonic_mean
from training.evaluate.embedding import DEFAULT_MEMORY_BYTES, Embedded, EmbeddingError, embed_once
from training.evaluate.model import Model
from training.evaluate.plan import ClassPart, PairPart, Plan
from training.evaluate.retrieval import Retrieval, retrieval
from training.evaluate.views import PairRule, ViewRule, video_vectors
from training.evaluate.zero_shot import zero_shot

Score = Accuracy | Retrieval


class Scored(Protocol):
    """A score with one figure that stands for it on a curve, in %."""

    @property
    def headline(self) -> float:
        """Top-1, text-to-video R@1, or a mean of such."""


@dataclass(frozen=True)
class Measured:
    """One plan, by one model, at one λ: a score for each part, by the part's name."""

    scores: dict[str, Score]

    @property
    def base_to_novel(self) -> bool:
        """Whether the parts are base and novel classes, whose mean is the harmonic one."""
        return set(self.scores) == {"base", "novel"}

    @property
    def headline(self) -> float:
        """The figure that stands for the plan on a λ curve, %: the mean over its parts."""
        if self.base_to_novel:
            return harmonic_mean(self.scores["base"].headline, self.scores["novel"].headline)
        return float(np.mean([score.headline for score in self.scores.values()]))


def mean_headline(scores: Sequence[Scored]) -> float:
    """The figure that stands for several seeds, %: the mean of theirs.

    Of base and novel classes it is the harmonic mean of the mean over seeds of either, as ViFi-CLIP
    has it, which is not the mean of the seeds' harmonic means.
    """
    halves = [score for score in scores if isinstance(score, Measured) and score.base_to_novel]
    if len(halves) == len(scores):
        base, novel = (
            float(np.mean([half.scores[name].headline for half in halves]))
            for name in ("base", "novel")
        )
        return harmonic_mean(base, novel)
    return float(np.mean([score.headline for score in scores]))


#: name of the model -> name of the plan -> λ
Results = dict[str, dict[str, dict[float, Measured]]]


def measure(
    models: Mapping[str, Model],
    plans: Mapping[str, Plan],
    *,
    clip_weights: Sequence[float],
    rule: ViewRule = "sum_of_logits",
    pair_rule: PairRule = "product",
    threads: int = 2,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_videos: Callable[[int], None] | None = None,
) -> tuple[Results, tuple[tuple[Path, str], ...]]:
    """Score every plan by every model at every λ; returns the scores and the undecodable videos.

    A video that several plans, models or λ need is decoded once; `distinct_videos` counts them.
    Raises EmbeddingError when a part has no video left, else as `embed_once`.
    """
    embedded = embed_once(
        models,
        distinct_videos(plans),
        clip_weights=clip_weights,
        threads=threads,
        memory_bytes=memory_bytes,
        on_videos=on_videos,
    )
    left = {name: [_left(part, embedded) for part in plan.parts] for name, plan in plans.items()}
    # A label is encoded once for all parts that it is in.
    labels = list(
        dict.fromkeys(
            name
            for parts in left.values()
            for part in parts
            if isinstance(part, ClassPart)
            for name in part.classes
        )
    )
    row_of = {name: row for row, name in enumerate(labels)}
    place = {path: row for row, path in enumerate(embedded.videos)}
    results: Results = {name: {plan: {} for plan in plans} for name in models}
    for name, model in models.items():
        for weight in clip_weights:
            model.set_clip_weight(weight)
            features = embedded.features[name, weight]
            classifier = model.classifier(labels) if labels else None
            for plan, parts in left.items():
                scores: dict[str, Score] = {}
                for part in parts:
                    rows = features[[place[path] for path in part.videos]]
                    if isinstance(part, PairPart):
                        vectors = video_vectors(rows, pooling=model.way.pooling)
                        texts = model.sentences(part.texts)
                        if pair_rule == "cosine":
                            vectors = unit(vectors)
                        scores[part.name] = retrieval(texts, vectors, part.video_of)
                        continue
                    assert classifier is not None
                    scores[part.name] = zero_shot(
                        rows,
                        classifier[[row_of[label] for label in part.classes]],
                        part.labels,
                        pooling=model.way.pooling,
                        logit_scale=model.logit_scale,
                        rule=rule,
                    )
                results[name][plan][weight] = Measured(scores)
    return results, embedded.failed


def distinct_videos(plans: Mapping[str, Plan]) -> list[Path]:
    """All videos of all plans, each once."""
    return list(
        dict.fromkeys(
            path for plan in plans.values() for part in plan.parts for path in part.videos
        )
    )


def means(scores: Sequence[Score]) -> dict[str, tuple[float, float | None]]:
    """Figure -> its mean over scores of one kind, and the sample standard deviation.

    None: a single score has no spread.
    """
    rows = [figures(score) for score in scores]
    return {
        name: (
            float(np.mean([row[name] for row in rows])),
            float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else None,
        )
        for name in rows[0]
    }


def figures(score: Score) -> dict[str, float]:
    """The figures of one score by name, without counts."""
    if isinstance(score, Accuracy):
        return {n: v for n, v in asdict(score).items() if n != "videos"}
    directions = {"t2v": score.text_to_video, "v2t": score.video_to_text}
    return {
        f"{short} {name}": value
        for short, direction in directions.items()
        for name, value in asdict(direction).items()
        if name != "queries"
    }


def _left(part: ClassPart | PairPart, embedded: Embedded) -> ClassPart | PairPart:
    """The part without the videos that could not be decoded."""
    left = part.only(embedded.videos)
    if not left.videos:
        raise EmbeddingError(f"{part.name}: none of its {len(part.videos)} videos can be decoded")
    return left
