"""Retrieval: the video of each sentence, and the sentence of each video."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Recall:
    """One direction. r1, r5, r10: % of queries whose match is among the first 1, 5, 10.

    median_rank: 1 is best. queries: how many.
    """

    r1: float
    r5: float
    r10: float
    median_rank: float
    queries: int


@dataclass(frozen=True)
class Retrieval:
    """Both directions."""

    text_to_video: Recall
    video_to_text: Recall

    @property
    def videos(self) -> int:
        """How many there are to find."""
        return self.video_to_text.queries

    @property
    def headline(self) -> float:
        """The figure that stands for the set on a λ curve, %: text-to-video R@1."""
        return self.text_to_video.r1


def recall(ranks: NDArray[np.integer]) -> Recall:
    """Recall and median of ranks, integer (n,), where 1 is best."""
    if len(ranks) == 0:
        raise ValueError("no queries")
    within = {k: 100.0 * float((ranks <= k).mean()) for k in (1, 5, 10)}
    return Recall(within[1], within[5], within[10], float(np.median(ranks)), len(ranks))


def retrieval(
    texts: NDArray[np.float32], videos: NDArray[np.float32], video_of: NDArray[np.integer]
) -> Retrieval:
    """Rank all videos for each text, and all texts for each video.

    texts: float32 (n, D), unit rows. videos: float32 (m, D), pooled. video_of: integer (n,), the
    row in `videos` that each text describes; several texts may describe one video, and then its
    best one counts. A rank is 1 + the number of wrong ones that score strictly higher.

    Raises ValueError for a text without video, a video without text, or scores that are not finite.
    """
    if len(video_of) != len(texts):
        raise ValueError(f"{len(texts)} texts with {len(video_of)} videos")
    if set(np.unique(video_of)) != set(range(len(videos))):
        raise ValueError(f"each of {len(videos)} videos needs a text, and each text a video")
    scores = texts @ videos.T  # (n, m)
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    own = scores[np.arange(len(texts)), video_of]
    of_texts = 1 + (scores > own[:, None]).sum(axis=1)
    best = np.full(len(videos), -np.inf, dtype=scores.dtype)
    np.maximum.at(best, video_of, own)
    # Own texts never exceed the best of them.
    of_videos = 1 + (scores > best[None, :]).sum(axis=0)
    return Retrieval(text_to_video=recall(of_texts), video_to_text=recall(of_videos))
