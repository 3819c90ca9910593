"""Scored tags: from one video vector and the vectors of its labels to an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.label_encoder import LabelEncoder, TextVectors
from service.labels import LabelQuery
from service.scoring import (
    MIN_BACKGROUND,
    Platt,
    ScoreKind,
    background_level,
    cosine,
    independent,
    level_with_negatives,
    logits,
    none_score,
    softmax,
)
from service.videoclip.errors import VideoWarning
from service.videoclip.pooling import unit


class Tag(NamedTuple):
    """One label of the answer; a tuple, since there are thousands of them.

    Attributes:
        label: its first text, normalised.
        label_id: the client's name for it.
        score: of the kind that was asked, see `service.scoring`.
        logit: `logit_scale · <pooled, text>`.
        cosine: angle between video and label, in [-1, 1].
    """

    label: str
    label_id: str | None
    score: float
    logit: float
    cosine: float


@dataclass(frozen=True)
class LabelVectors:
    """The vectors that a request's labels need, as `flat_texts` ordered them.

    Attributes:
        texts: of all texts and negative texts of the labels.
        background: (m, D) of the background labels; None unless scores are independent.
    """

    texts: TextVectors
    background: npt.NDArray[np.float32] | None


def flat_texts(labels: Sequence[LabelQuery]) -> list[str]:
    """Return all texts of the labels: for each label its texts, then its negative texts."""
    return [text for label in labels for text in (*label.text, *label.negative)]


async def encode_labels(
    encoder: LabelEncoder,
    *,
    labels: Sequence[LabelQuery],
    background: Sequence[str] | None,
    templates: tuple[str, ...],
    clip_weight: float,
    deadline: float | None = None,
) -> LabelVectors:
    """Return the vectors of all texts of `labels`, and of the `background` if there is one.

    Raises: as `LabelEncoder.encode`.
    """
    texts = await encoder.encode(
        flat_texts(labels), templates=templates, clip_weight=clip_weight, deadline=deadline
    )
    if background is None:
        return LabelVectors(texts, None)
    found = await encoder.encode(
        background, templates=templates, clip_weight=clip_weight, deadline=deadline
    )
    return LabelVectors(texts, found.vectors)


def score_tags(
    pooled: npt.NDArray[np.float32],
    *,
    labels: Sequence[LabelQuery],
    vectors: LabelVectors,
    scores: ScoreKind,
    logit_scale: float,
    calibration: Platt | None = None,
) -> tuple[list[Tag], float | None]:
    """Return the tags, best first, and the *none of these* score (independent scores only).

    A label with several texts is the unit mean of their classifiers. Labels with equal scores
    stay in the order of the request.

    Args:
        pooled: float32 (D,), the video, as the recipe pools it (not always of unit length).
        labels: of the request.
        vectors: of their texts.
        scores: which kind.
        logit_scale: of the space.
        calibration: of the artefact at its present λ, for independent scores.
    """
    negatives: list[npt.NDArray[np.float32]] = []
    if len(vectors.texts.vectors) == len(labels):
        text = vectors.texts.vectors  # one text each, as almost always
    else:
        rows, negatives = _split(labels, vectors.texts.vectors)
        text = np.stack([row[0] if len(row) == 1 else unit(row.mean(axis=0)) for row in rows])
    values = logits(pooled, text=text, logit_scale=logit_scale)
    cosines = cosine(pooled, text=text)
    nothing = None
    if scores == "softmax":
        result = softmax(values)
    elif scores == "cosine":
        result = cosines
    else:
        if vectors.background is None:
            raise ValueError("independent scores need a background")
        level = background_level(logits(pooled, text=vectors.background, logit_scale=logit_scale))
        levels = [
            level_with_negatives(level, negatives=logits(pooled, text=n, logit_scale=logit_scale))
            if len(n)
            else level
            for n in negatives
        ] or [level] * len(labels)
        result = independent(values, level=np.asarray(levels), calibration=calibration)
        nothing = none_score(result)
    columns = (result.tolist(), values.tolist(), cosines.tolist())
    tags = [
        Tag(label.text[0], label.id, *numbers)
        for label, *numbers in zip(labels, *columns, strict=True)
    ]
    return [tags[n] for n in np.lexsort((-values, -result))], nothing


def keep(tags: list[Tag], *, top_k: int | None, threshold: float | None) -> tuple[Tag, ...]:
    """Return the first `top_k` tags whose score is at least `threshold`."""
    chosen = tags if threshold is None else [tag for tag in tags if tag.score >= threshold]
    return tuple(chosen if top_k is None else chosen[:top_k])


def label_warnings(
    labels: Sequence[LabelQuery],
    vectors: LabelVectors,
    *,
    scores: ScoreKind,
    few_background: bool,
) -> tuple[VideoWarning, ...]:
    """Return what a client should know about the labels of an answer.

    Codes: `label_truncated`, `single_label`, `few_background_labels`.
    """
    found = list(truncation(flat_texts(labels), vectors.texts.truncated))
    if scores == "softmax" and len(labels) == 1:
        detail = "softmax over one label is always 1; independent scores tell if it applies"
        found.append(VideoWarning("single_label", detail))
    if scores == "independent" and few_background:
        detail = (
            f"the model brings fewer than {MIN_BACKGROUND} background labels; "
            "everyday labels were added to them"
        )
        found.append(VideoWarning("few_background_labels", detail))
    return tuple(found)


def truncation(texts: Sequence[str], truncated: npt.NDArray[np.bool_]) -> tuple[VideoWarning, ...]:
    """Return a warning if the tokenizer had to cut any of `texts`."""
    cut = [text for text, flag in zip(texts, truncated, strict=True) if flag]
    if not cut:
        return ()
    shown = ", ".join(repr(text[:40]) for text in cut[:3])
    more = f" and {len(cut) - 3} more" if len(cut) > 3 else ""
    detail = f"longer than the model reads, the end was cut: {shown}{more}"
    return (VideoWarning("label_truncated", detail),)


def _split(
    labels: Sequence[LabelQuery], vectors: npt.NDArray[np.float32]
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    texts, negatives = [], []
    position = 0
    for label in labels:
        middle = position + len(label.text)
        end = middle + len(label.negative)
        texts.append(vectors[position:middle])
        negatives.append(vectors[middle:end])
        position = end
    return texts, negatives
