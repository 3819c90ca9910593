"""MixUp and CutMix of whole clips, with soft labels: ViFi-CLIP's released training targets.

MixUp (Zhang et al., ICLR 2018) blends two clips; CutMix (Yun et al., ICCV 2019) puts a rectangle of
one into the other, the same rectangle in every frame. One share and one rectangle are drawn for the
whole batch; partners are a random order of the same batch, so a clip may meet itself.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def smooth_labels(labels: Tensor, *, classes: int, smoothing: float) -> Tensor:
    """One-hot rows with a part of the weight spread over all classes, the right one included.

    labels: int64 (B,). smoothing: 0 to 1; the right class gets 1 - smoothing + smoothing / classes.
    Returns float32 (B, classes), rows that sum to 1.
    """
    return F.one_hot(labels, classes).float() * (1.0 - smoothing) + smoothing / classes


def mixup(
    frames: Tensor, targets: Tensor, *, partners: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """share of each clip and 1 - share of its partner, in pixels and in targets. New tensors.

    frames: float (B, T, 3, H, W); targets: float (B, C); partners: int64 (B,).
    """
    return (
        torch.lerp(frames[partners], frames, share),
        torch.lerp(targets[partners], targets, share),
    )


def cutmix(frames: Tensor, targets: Tensor, *, partners: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Each clip with the partner's pixels inside the box; targets by the share of pixels kept.

    Shapes as of `mixup`. New tensors.
    """
    mixed = frames.clone()
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    mixed[inside] = frames[inside][partners]
    kept = 1.0 - box.area / (frames.shape[-1] * frames.shape[-2])
    return mixed, torch.lerp(targets[partners], targets, kept)


def random_box(rng: np.random.Generator, *, share: float, height: int, width: int) -> Box:
    """A rectangle whose sides are sqrt(1 - share) of the picture's, about a random pixel.

    What reaches over the edge is cut off, so that the kept share of pixels may be above `share`.
    """
    side = math.sqrt(1.0 - share)
    half_width, half_height = int(width * side) // 2, int(height * side) // 2
    x, y = int(rng.integers(width)), int(rng.integers(height))
    return Box(
        top=max(y - half_height, 0),
        bottom=min(y + half_height, height),
        left=max(x - half_width, 0),
        right=min(x + half_width, width),
    )


def mix(
    frames: Tensor,
    targets: Tensor,
    rng: np.random.Generator,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of a batch, one of them at random, with a share drawn from Beta(α, α).

    Shapes as of `mixup`. An α of 0 leaves the choice to the other; with both 0, and for a single
    clip, which has no partner but itself, the batch stays as it is.
    """
    if len(frames) < 2 or (mixup_alpha <= 0.0 and cutmix_alpha <= 0.0):
        return frames, targets
    cut = rng.random() < 0.5 if mixup_alpha > 0.0 and cutmix_alpha > 0.0 else cutmix_alpha > 0.0
    partners = torch.from_numpy(rng.permutation(len(frames))).to(frames.device)
    alpha = cutmix_alpha if cut else mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if not cut:
        return mixup(frames, targets, partners=partners, share=share)
    height, width = frames.shape[-2:]
    box = random_box(rng, share=share, height=height, width=width)
    return cutmix(frames, targets, partners=partners, box=box)
