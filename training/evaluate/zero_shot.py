"""Zero-shot classification by the network itself: labels in words, videos as frames in memory."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing
from service.videoclip.pooling import Pooling
from service.videoclip.preprocessing import normalize
from training.evaluate.accuracy import Accuracy, accuracy
from training.evaluate.views import ViewRule, class_scores, view_features
from training.models.network import VideoCLIP


def zero_shot(
    features: NDArray[np.float32],
    classifier: NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    pooling: Pooling,
    logit_scale: float = 1.0,
    rule: ViewRule = "sum_of_logits",
) -> Accuracy:
    """Classify videos by the products of their views with a text classifier.

    features: float32 (n, V, D) of `view_features`. classifier: float32 (C, D), unit rows. labels:
    integer (n,), rows of the classifier. logit_scale matters to ``sum_of_softmax`` alone. Ties and
    errors: `training.evaluate.accuracy.accuracy`.
    """
    scores = class_scores(features, classifier, pooling=pooling, logit_scale=logit_scale, rule=rule)
    return accuracy(scores, labels)


def embed_views(
    network: VideoCLIP,
    frames: NDArray[np.uint8],
    *,
    preprocessing: Preprocessing,
    pooling: Pooling = "normalize_then_mean",
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Views of videos as vectors, by the network as it is.

    frames: uint8 (n, V, T, S, S, 3), resized and cropped. batch_size: views that the network sees
    at once. on_batch: called with the number of views done since the last call. Returns float32
    (n, V, D) of `view_features`.
    """
    network.eval()
    device = next(network.parameters()).device
    clips = frames.reshape(-1, *frames.shape[2:])
    pooled = []
    for first in range(0, len(clips), batch_size):
        batch = normalize(clips[first : first + batch_size], preprocessing)
        with torch.no_grad():
            out = network.encode_frames(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        pooled.append(view_features(out, pooling=pooling))
        if on_batch is not None:
            on_batch(len(batch))
    return np.concatenate(pooled).reshape(*frames.shape[:2], -1)
