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
    Each label for itself, against a background of labels that the artefact carries, and as a
    probability if the artefact is calibrated. See `service.videoclip.independent`.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from service.videoclip.independent import MIN_BACKGROUND as MIN_BACKGROUND
from service.videoclip.independent import RIVALS as RIVALS
from service.videoclip.independent import Platt as Platt
from service.videoclip.independent import background_level as background_level
from service.videoclip.independent import independent as independent
from service.videoclip.independent import level_with_negatives as level_with_negatives

Floats = npt.NDArray[np.float64]
ScoreKind = Literal["softmax", "independent", "cosine"]


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


def none_score(scores: npt.NDArray[np.floating]) -> float:
    """Return the *none of these* score of independent `scores` (n,), n >= 1: 1 - the highest.

    That not even the best label applies. It does not add up over labels (1 - Π(1 - p) would call
    it certain that something applies as soon as enough wrong labels are asked, and would count
    synonyms twice), so a thousand wrong labels do not hide that none fits.
    """
    return float(1.0 - np.max(scores))
