"""Zero-shot classification: how often the right label comes first, or among the first five."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing
from service.videoclip.pooling import Pooling, pool
from service.videoclip.preprocessing import normalize
from training.models.network import VideoCLIP


@dataclass(frozen=True)
class ZeroShot:
    """Shares of videos in %: the right label first (top1), or among the first five (top5)."""

    top1: float
    top5: float
    videos: int


def zero_shot(
    embeddings: NDArray[np.float32], classifier: NDArray[np.float32], labels: NDArray[np.integer]
) -> ZeroShot:
    """Classify pooled video embeddings by their products with a text classifier.

    embeddings: float32 (n, D), pooled. classifier: float32 (C, D), unit rows. labels: integer (n,),
    rows of the classifier. Equal scores count against the model: a label is right only if no other
    one reaches its score. With fewer than five labels top5 is 100.
    Raises ValueError for nothing to classify, labels out of range, or scores that are not finite.
    """
    if len(embeddings) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(embeddings)} embeddings with {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(classifier):
        raise ValueError(
            f"labels: {labels.min()} to {labels.max()} of a classifier of {len(classifier)} rows"
        )
    scores = embeddings @ classifier.T  # (n, C)
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    right = scores[np.arange(len(labels)), labels]
    # The right label's own comparison is one of those counted.
    better = (scores >= right[:, None]).sum(axis=1) - 1
    return ZeroShot(
        top1=100.0 * float((better < 1).mean()),
        top5=100.0 * float((better < 5).mean()),
        videos=len(labels),
    )


def embed_videos(
    network: VideoCLIP,
    frames: NDArray[np.uint8],
    *,
    preprocessing: Preprocessing,
    pooling: Pooling = "normalize_then_mean",
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Pooled embeddings of clips that lie in memory.

    frames: uint8 (n, T, S, S, 3), resized and cropped. on_batch: called with the number of clips
    done since the last call. Returns float32 (n, D).
    """
    network.eval()
    device = next(network.parameters()).device
    pooled = []
    for first in range(0, len(frames), batch_size):
        batch = normalize(frames[first : first + batch_size], preprocessing)
        with torch.no_grad():
            out = network.encode_frames(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        pooled.append(pool(out, pooling=pooling))
        if on_batch is not None:
            on_batch(len(batch))
    return np.concatenate(pooled)
