"""How often the right label comes first, or among the first five."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.videoclip.ranking import ranks


@dataclass(frozen=True)
class Accuracy:
    """Shares of videos in %.

    top1: the right label scores highest. top5: it is among the five highest. mean_per_class: top-1
    of each class that has videos, averaged over the classes. videos: how many were scored.
    """

    top1: float
    top5: float
    mean_per_class: float
    videos: int

    @property
    def headline(self) -> float:
        """The figure that stands for the set on a λ curve, %: top-1."""
        return self.top1


def accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
    """Count hits. Equal scores count against the model: right is only what no other label reaches.

    scores: (n, C). labels: integer (n,), columns of `scores`. With fewer than five labels top5 is
    100. Raises ValueError for nothing to score, a label that is no column, or a score that is not
    finite.
    """
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(scores)} rows of scores with {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels: {labels.min()} to {labels.max()} for {scores.shape[1]} columns of scores"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    better = ranks(scores, labels)
    first = better < 1
    _, members = np.unique(labels, return_inverse=True)
    per_class = np.bincount(members, weights=first) / np.bincount(members)
    return Accuracy(
        top1=100.0 * float(first.mean()),
        top5=100.0 * float((better < 5).mean()),
        mean_per_class=100.0 * float(per_class.mean()),
        videos=len(labels),
    )
