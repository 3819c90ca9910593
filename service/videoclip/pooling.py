"""From frame embeddings to one vector: over frames, over views, over prompt templates."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["normalize_then_mean", "mean_then_normalize"]
TemplateMean = Literal["unit", "plain"]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors` float32 (..., D), each divided by its Euclidean length.

    Raises:
        ValueError: a vector is zero or not finite. A score must never be made from it.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        bad = int(np.sum(~(np.isfinite(lengths) & (lengths > 0))))
        raise ValueError(f"{bad} of {lengths.size} embeddings are zero or not finite")
    result: NDArray[np.float32] = (vectors / lengths).astype(np.float32, copy=False)
    return result


def pool(frame_embeddings: NDArray[np.float32], *, pooling: Pooling) -> NDArray[np.float32]:
    """One vector for each clip.

    ``normalize_then_mean`` (Open-VCLIP, FitCLIP): mean of unit frame vectors, *not* normalised
    again, so that its dot product with a unit text vector is the mean of the frame cosines.
    ``mean_then_normalize`` (ViFi-CLIP, Text4Vis): unit vector of the mean.

    Args:
        frame_embeddings: float32 (..., T, D), not normalised.
        pooling: which of the two.

    Returns:
        float32 (..., D).

    Raises:
        ValueError: a vector that must be normalised is zero or not finite.
    """
    if pooling == "normalize_then_mean":
        mean: NDArray[np.float32] = unit(frame_embeddings).mean(axis=-2)
        return mean
    if pooling == "mean_then_normalize":
        return unit(frame_embeddings.mean(axis=-2))
    raise ValueError(f"pooling: {pooling!r} is unknown")


def combine_views(clip_embeddings: NDArray[np.float32], *, pooling: Pooling) -> NDArray[np.float32]:
    """One vector from several views of the same video.

    The mean over views; with ``normalize_then_mean`` this equals averaging the logits of the
    views (Open-VCLIP sums them, "aggregated linearly"); with ``mean_then_normalize`` the mean
    is normalised again (Text4Vis).

    Args:
        clip_embeddings: float32 (..., V, D) as `pool` returns them.
        pooling: the same as given to `pool`.

    Returns:
        float32 (..., D).
    """
    mean: NDArray[np.float32] = clip_embeddings.mean(axis=-2)
    return unit(mean) if pooling == "mean_then_normalize" else mean


def text_classifier(
    embeddings: NDArray[np.float32], *, template_mean: TemplateMean = "unit"
) -> NDArray[np.float32]:
    """One vector for each label: normalise, mean over templates, normalise again.

    As in Open-VCLIP and in the CLIP paper, section 3.1.4 (prompt ensembling).

    Args:
        embeddings: float32 (n_labels, n_templates, D), not normalised.
        template_mean: "plain" leaves the mean as it is, so that a label whose templates disagree
            scores lower for every video: FitCLIP's released evaluation.

    Returns:
        float32 (n_labels, D), rows of length 1; at most 1 with "plain".

    Raises:
        ValueError: a vector is zero or not finite.
    """
    mean: NDArray[np.float32] = unit(embeddings).mean(axis=-2)
    return unit(mean) if template_mean == "unit" else mean
