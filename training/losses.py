"""Losses and the logits they are taken of."""

import torch
from torch import Tensor
from torch.nn import functional as F


def video_logits(frame_embeddings: Tensor, classifier: Tensor, *, logit_scale: Tensor) -> Tensor:
    """Open-VCLIP's head: cosine logits of every frame, averaged over the frames.

    frame_embeddings: (B, T, D), not normalised. classifier: (C, D) unit rows. logit_scale: scalar,
    as stored, the logarithm of the scale. Returns float32 (B, C), whatever type autocast would
    choose.

    The mean over frames is taken of the unit vectors, before the product with the classifier: the
    same numbers, T times less work.
    """
    with _full_precision(frame_embeddings):
        video = F.normalize(frame_embeddings.float(), dim=-1).mean(dim=1)  # (B, D)
        return logit_scale.float().exp() * F.linear(video, classifier.float())


def pooled_video_logits(
    frame_embeddings: Tensor, classifier: Tensor, *, logit_scale: Tensor
) -> Tensor:
    """ViFi-CLIP's and Text4Vis's head: cosine logits of the mean of the frames.

    frame_embeddings: (B, T, D), not normalised. classifier: (C, D) unit rows. logit_scale: scalar,
    as stored. Returns float32 (B, C), as `video_logits` does.
    """
    with _full_precision(frame_embeddings):
        video = F.normalize(frame_embeddings.float().mean(dim=1), dim=-1)  # (B, D)
        return logit_scale.float().exp() * F.linear(video, classifier.float())


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with hard labels. logits: (B, C) of any float type; labels: int64 (B,)."""
    return F.cross_entropy(logits.float(), labels)


def soft_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with a distribution over the classes for each row; mean over the rows.

    logits: (B, C) of any float type; targets: float (B, C), rows that sum to 1. Returns a scalar.
    """
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()


def contrastive_loss(images: Tensor, texts: Tensor, *, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric loss over a batch of pairs (Radford et al., 2021, figure 3).

    images, texts: (B, D) unit rows, pair by pair. logit_scale: scalar, as stored. Returns a scalar.
    """
    logits = logit_scale.exp() * images @ texts.T  # (B, B)
    pairs = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def closeness_loss(embeddings: Tensor, *, most: float) -> Tensor:
    """By how much the cosines within a group exceed what is allowed, on average over its pairs.

    embeddings: (N, D) unit rows, N > 1. most: the largest cosine that costs nothing. Returns a
    scalar.
    """
    cosines = embeddings @ embeddings.T
    pairs = torch.triu_indices(len(embeddings), len(embeddings), offset=1)
    return F.relu(cosines[pairs[0], pairs[1]] - most).mean()


def pair_loss(scores: Tensor) -> Tensor:
    """InfoNCE in both directions, added and not averaged (FitCLIP, eqs. 1 and 2, as coded).

    scores: (N, N), already divided by the temperature; pair i is on the diagonal. Returns a scalar,
    twice what `contrastive_loss` gives. The equations as printed lack the minus sign.
    """
    scores = scores.float()
    pairs = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the rows and of the columns, added (FitCLIP, eqs. 3 and 4).

    student, teacher: (N, M) scores, already divided by the temperature. Each direction is the mean
    over its distributions: N of them for the rows, M for the columns. The printed cross-entropy
    has the same gradient and another value. Returns a scalar.
    """

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        return F.kl_div(
            F.log_softmax(student, dim=-1),
            F.log_softmax(teacher, dim=-1),
            reduction="batchmean",
            log_target=True,
        )

    student, teacher = student.float(), teacher.float()
    return divergence(student, teacher) + divergence(student.T, teacher.T)


def similarity(videos: Tensor, texts: Tensor, *, temperature: float) -> Tensor:
    """Products of all videos and texts over the temperature σ, in float32.

    videos: (N, D); texts: (M, D). Returns float32 (N, M), whatever type autocast would choose.
    """
    with _full_precision(videos):
        return F.linear(videos.float(), texts.float()) / temperature


def _full_precision(x: Tensor) -> torch.autocast:
    """A context for what bf16 would spoil: at CLIP's scale of 100 it rounds logits to 0.5."""
    return torch.autocast(x.device.type, enabled=False)
