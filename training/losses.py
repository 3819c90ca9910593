"""Losses and the logits they are taken of."""

from torch import Tensor
from torch.nn import functional as F


def video_logits(frame_embeddings: Tensor, classifier: Tensor, *, logit_scale: Tensor) -> Tensor:
    """Open-VCLIP's head: cosine logits of every frame, averaged over the frames.

    frame_embeddings: (B, T, D), not normalised. classifier: (C, D) unit rows. logit_scale: scalar,
    as stored, the logarithm of the scale. Returns (B, C).

    The mean over frames is taken of the unit vectors, before the product with the classifier: the
    same numbers, T times less work.
    """
    video = F.normalize(frame_embeddings, dim=-1).mean(dim=1)  # (B, D)
    return logit_scale.exp() * F.linear(video, classifier.to(video.dtype))


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with hard labels. logits: (B, C) of any float type; labels: int64 (B,)."""
    return F.cross_entropy(logits.float(), labels)
