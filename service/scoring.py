"""Scores of labels for one video: softmax, cosine, independent. Pure numpy.

Notation: the *logit* of a label is `logit_scale · <pooled, text>`, as the recipe trains and tests
it (Open-VCLIP: unit frame vectors, mean over frames, not renormalised; recipes differ in the
pooling, never in this product). `pooled` is (D,), `text` unit rows (n, D).

What the three scores mean:

`softmax`
    The share of each label when the video *must* be one of the labels of this request. It answers
    "which of these", never "is it any of these": one label alone always gets 1.
`cosine`
    The angle between video and text, in [-1, 1]. Comparable between requests to the same embedding
    space only; a right label of OpenAI's ViT-B/32 sits near 0.31, a wrong one at 0.20 to 0.27.
`independent`
    Each label for itself, against a background of labels that the artefact carries. See
    `independent`.
"""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ScoreKind = Literal["softmax", "independent", "cosine"]

RIVALS: Final = 500
"""How many background labels a label has to beat together for an independent score of 0.5."""

TRIMMED_SHARE: Final = 0.05
"""Share of the background, from the top, that may well be true of the video and is left out."""

MIN_BACKGROUND: Final = 20
"""Fewer background labels than this say nothing about how high wrong labels score."""


def logits(
    pooled: npt.NDArray[np.floating], *, text: npt.NDArray[np.floating], logit_scale: float
) -> Floats:
    """Return `logit_scale · text @ pooled`, (n,) float64, for `pooled` (D,) and `text` (n, D)."""
    return logit_scale * np.asarray(text @ pooled, np.float64)


def cosine(pooled: npt.NDArray[np.floating], *, text: npt.NDArray[np.floating]) -> Floats:
    """Return the cosines (n,) in [-1, 1] between `pooled` (D,) and the unit rows of `text` (n, D).

    Raises:
        ValueError: `pooled` is zero or not finite: it has no direction.
    """
    length = float(np.linalg.norm(pooled))
    if not np.isfinite(length) or length == 0.0:
        raise ValueError("cosine of a vector that is zero or not finite")
    result: Floats = np.clip(np.asarray(text @ pooled, np.float64) / length, -1.0, 1.0)
    return result


def softmax(values: npt.NDArray[np.floating]) -> Floats:
    """Return the softmax over the last axis of `values`, float64, for logits of any size."""
    array = np.asarray(values, np.float64)
    powers = np.exp(array - array.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def background_level(background_logits: npt.NDArray[np.floating]) -> float:
    """Return the logit at which a label is as likely as `RIVALS` wrong labels together.

    CLIP's contrastive loss makes exp(logit) proportional to p(text | video) / p(text) (van den
    Oord et al. 2018, section 2.3), and the factor of proportion is the mean of exp(logit) over
    unrelated texts. So `log mean exp` over a background of labels tells what a logit of *this
    video* is worth, with the temperature that training chose, and `log RIVALS` is the prior:
    one label in 500 applies. The highest `TRIMMED_SHARE` of the background is left out first,
    because a background of everyday words holds words that are true of the video, and a label is
    not less true because a synonym of it is in the background. With OpenAI's ViT-B/32 on a film
    of a weight lifter, four vocabularies of 80 to 1,203 labels as background give levels within
    0.8 of each other with trimming, 4.6 without.

    Args:
        background_logits: (m,) logits of the background labels for the video.

    Raises:
        ValueError: fewer than `MIN_BACKGROUND` labels, or a logit that is not finite.
    """
    values = np.sort(np.asarray(background_logits, np.float64))
    if values.ndim != 1 or len(values) < MIN_BACKGROUND:
        raise ValueError(f"{values.size} background logits, at least {MIN_BACKGROUND} are needed")
    if not np.all(np.isfinite(values)):
        raise ValueError("a background logit is not finite")
    kept = values[: len(values) - int(np.ceil(TRIMMED_SHARE * len(values)))]
    return _log_sum_exp(kept) - float(np.log(len(kept))) + float(np.log(RIVALS))


def independent(
    values: npt.NDArray[np.floating], *, level: npt.NDArray[np.floating] | float
) -> Floats:
    """Return the independent scores (n,) in [0, 1] of labels with the logits `values` (n,).

    The score is `sigmoid(logit - level)`: the softmax share that the label gets when it competes
    with `RIVALS` labels drawn from the background and with nothing else. Labels of the same
    request do not see each other: several may be near 1, all may be near 0.

    What it is not: a frequency. 0.9 does not mean that nine of ten such answers are right. It is
    the model's own belief under a fixed prior, it inherits the model's blind spots (labels that
    score high on every video, negations, counts), and it depends on the background being labels
    of the kind that are asked. Rank by it and set thresholds on it; measure before promising.

    Args:
        values: (n,) logits.
        level: `background_level` of the video, or (n,) levels, see `level_with_negatives`.
    """
    distance = np.asarray(values, np.float64) - np.asarray(level, np.float64)
    # exp of a negative number only: no overflow at either end.
    small = np.exp(-np.abs(distance))
    result: Floats = np.where(distance >= 0, 1.0, small) / (1.0 + small)
    return result


def level_with_negatives(level: float, *, negatives: npt.NDArray[np.floating]) -> float:
    """Return the level for one label whose `negatives` (k,) logits join its background.

    A label with negative texts must beat the background *and* these texts together; other labels
    of the request are not concerned. No negatives: `level` itself.
    """
    if len(negatives) == 0:
        return level
    return _log_sum_exp(np.append(np.asarray(negatives, np.float64), level))


def none_score(scores: npt.NDArray[np.floating]) -> float:
    """Return the *none of these* score of independent `scores` (n,), n >= 1: 1 - the highest.

    That not even the best label applies. It does not add up over labels (1 - Π(1 - p) would call
    it certain that something applies as soon as enough wrong labels are asked, and would count
    synonyms twice), so a thousand wrong labels do not hide that none fits.
    """
    return float(1.0 - np.max(scores))


def _log_sum_exp(values: Floats) -> float:
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))
