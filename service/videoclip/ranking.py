"""Where the right label stands among all labels, and which λ of equally good ones is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

# Rounding alone does not make one λ better than another.
_DECIMALS = 6


def ranks(
    scores: npt.NDArray[np.floating], labels: Sequence[int] | npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Return how many other labels score at least as high as the right one, int64 (n,).

    So equal scores count against the model, and 0 means that the right label came first.

    Args:
        scores: (n, C).
        labels: n columns of `scores`.
    """
    right = scores[np.arange(len(scores)), np.asarray(labels, dtype=np.int64)]
    # The right label's own comparison is one of those counted.
    found: npt.NDArray[np.int64] = (scores >= right[:, None]).sum(axis=1, dtype=np.int64) - 1
    return found


def best_clip_weight(merits: Mapping[float, float]) -> float:
    """Return the λ of the highest merit; of equals the larger, which forgets less of CLIP.

    Merits in points of % that agree to six decimals are equal. Raises ValueError for none.
    """
    return max(merits, key=lambda clip_weight: (round(merits[clip_weight], _DECIMALS), clip_weight))


def are_equal(one: float, other: float) -> bool:
    """Return whether two merits differ by rounding alone."""
    return round(one - other, _DECIMALS) == 0.0
