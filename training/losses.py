"""Losses and the logits they are taken of."""

import torch
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


def contrastive_loss(images: Tensor, texts: Tensor, *, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric loss over a batch of pairs (Radford et al., 2021, figure 3).

    images, texts: (B, D) unit rows, pair by pair. logit_scale: scalar, as stored. Returns a scalar.
    """
    logits = logit_scale.exp() * images @ texts.T  # (B, B)
    pairs = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
