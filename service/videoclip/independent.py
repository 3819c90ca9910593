"""Independent scores: each label for itself, against a background. Pure numpy.

The *margin* of a label is its logit minus the level that `background_level` takes from the logits
of the background for the same video; `service.scoring` says what a logit is. The score is the
sigmoid of the margin, or of a line through it that was fitted to labelled videos: see
`service.videoclip.calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RIVALS: Final = 500
"""How many background labels a label has to beat together for an independent score of 0.5."""

TRIMMED_SHARE: Final = 0.05
"""Share of the background, from the top, that may well be true of the video and is left out."""

MIN_BACKGROUND: Final = 20
"""Fewer background labels than this say nothing about how high wrong labels score."""


@dataclass(frozen=True)
class Platt:
    """How margins become probabilities: ``sigmoid(slope * margin + intercept)`` (Platt 1999).

    The slope is above 0, so that no order of labels changes; 1 and 0 are the plain score.
    """

    slope: float = 1.0
    intercept: float = 0.0


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
    values: npt.NDArray[np.floating],
    *,
    level: npt.NDArray[np.floating] | float,
    calibration: Platt | None = None,
) -> Floats:
    """Return the independent scores (n,) in [0, 1] of labels with the logits `values` (n,).

    The score is `sigmoid(logit - level)`: the softmax share that the label gets when it competes
    with `RIVALS` labels drawn from the background and with nothing else. Labels of the same
    request do not see each other: several may be near 1, all may be near 0.

    What it is not, without `calibration`: a frequency. 0.9 does not mean that nine of ten such
    answers are right. It is the model's own belief under a fixed prior, it inherits the model's
    blind spots (labels that score high on every video, negations, counts), and it depends on the
    background being labels of the kind that are asked. Rank by it and set thresholds on it;
    measure before promising.

    Args:
        values: (n,) logits.
        level: `background_level` of the video, or (n,) levels, see `level_with_negatives`.
        calibration: fitted to labelled videos; then the score is a frequency on videos and labels
            like those.
    """
    distance = np.asarray(values, np.float64) - np.asarray(level, np.float64)
    if calibration is not None:
        distance = calibration.slope * distance + calibration.intercept
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


def _log_sum_exp(values: Floats) -> float:
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))
