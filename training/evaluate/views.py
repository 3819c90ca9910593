"""Several views of one video: how their frames become scores.

The papers do it in three ways, and numbers depend on which. With one view all three rank the
labels alike.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.videoclip.pooling import Pooling, combine_views, pool, unit

#: ``sum_of_logits``: Open-VCLIP; and the service, up to a factor for each video.
#: ``mean_of_features``: Text4Vis, the mean over all views and frames, then its direction.
#: ``sum_of_softmax``: ViFi-CLIP, and Kinetics-400 in most papers.
ViewRule = Literal["sum_of_logits", "mean_of_features", "sum_of_softmax"]
#: How a sentence and a video are compared. ``product``: with the vector of `video_vectors`, as
#: Open-VCLIP and FitCLIP do. ``cosine``: the angle alone, as the index of the service does.
PairRule = Literal["product", "cosine"]
VIEW_RULES: tuple[ViewRule, ...] = ("sum_of_logits", "mean_of_features", "sum_of_softmax")


def view_features(
    frame_embeddings: NDArray[np.float32], *, pooling: Pooling
) -> NDArray[np.float32]:
    """One vector for each view: the mean over its frames, before any normalisation of that mean.

    frame_embeddings: float32 (..., T, D), not normalised. Returns float32 (..., D): means of unit
    frame vectors with ``normalize_then_mean``, else of the frame vectors as they are.
    """
    if pooling == "normalize_then_mean":
        return pool(frame_embeddings, pooling=pooling)
    mean: NDArray[np.float32] = frame_embeddings.mean(axis=-2)
    return mean


def class_scores(
    features: NDArray[np.float32],
    classifier: NDArray[np.float32],
    *,
    pooling: Pooling,
    logit_scale: float,
    rule: ViewRule = "sum_of_logits",
) -> NDArray[np.float32]:
    """Scores of every class for every video, float32 (n, C).

    features: float32 (n, V, D) of `view_features`. classifier: float32 (C, D), unit rows.
    logit_scale: as multiplied, 100 for CLIP.
    """
    if rule == "mean_of_features":
        features = features.mean(axis=1, keepdims=True)
    if pooling == "mean_then_normalize":
        features = unit(features)
    logits = logit_scale * (features @ classifier.T)  # (n, V, C)
    if rule == "sum_of_softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        logits = powers / powers.sum(axis=-1, keepdims=True)
    total: NDArray[np.float32] = logits.sum(axis=1)
    return total


def video_vectors(features: NDArray[np.float32], *, pooling: Pooling) -> NDArray[np.float32]:
    """One vector for each video, float32 (n, D), as the service has it.

    features: float32 (n, V, D) of `view_features`. Not of unit length with ``normalize_then_mean``:
    a video whose frames disagree scores lower for every text (Open-VCLIP, FitCLIP).
    """
    views = unit(features) if pooling == "mean_then_normalize" else features
    return combine_views(views, pooling=pooling)
