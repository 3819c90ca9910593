"""What depends on the step alone: the learning rate, and when weights are averaged."""

import math
from typing import Literal

PEAK_LEARNING_RATE = 3.33e-6
FLOOR_SHARE = 0.01
WARMUP_SHARE = 2 / 22

Shape = Literal["cosine", "constant"]
CosineFrom = Literal["warmup", "start"]


def learning_rate(
    progress: float,
    *,
    peak: float = PEAK_LEARNING_RATE,
    shape: Shape = "cosine",
    floor_share: float = FLOOR_SHARE,
    warmup_share: float = WARMUP_SHARE,
    warmup_from_share: float | None = None,
    cosine_from: CosineFrom = "warmup",
) -> float:
    """A linear warm-up to `peak`, then a cosine down to `floor_share * peak`, or `peak` for good.

    progress: share of the training that is done, 0 to 1. warmup_share: share of the training that
    the warm-up takes. warmup_from_share: where it begins, as a share of `peak`; None is
    `floor_share`. cosine_from: whether the cosine begins at the warm-up's end or, unseen, at the
    training's start.

    The defaults are Open-VCLIP's released schedule, where 22 epochs are 2 of warm-up and 20 of
    cosine. Text4Vis warms up from 0 and ends at 0. ViFi-CLIP warms up from 0 and its cosine counts
    from the start of the training, as timm's scheduler does unless told otherwise, so the rate
    falls at once when the warm-up is over. FitCLIP's is constant. Raises ValueError for a progress
    outside of 0 to 1.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress: {progress} is not within 0 and 1")
    floor = floor_share * peak
    if progress < warmup_share:
        begin = floor if warmup_from_share is None else warmup_from_share * peak
        return begin + (peak - begin) * progress / warmup_share
    if shape == "constant":
        return peak
    skipped = warmup_share if cosine_from == "warmup" else 0.0
    done = (progress - skipped) / (1.0 - skipped) if skipped < 1.0 else 1.0
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def snapshot_steps(steps: int, *, start_share: float, count: int) -> tuple[int, ...]:
    """After which steps (1-based, ascending, no repetition) weights go into the running mean.

    `count` points at equal distances from `start_share * steps` to `steps`. Open-VCLIP's released
    mean is of the ends of epochs 2 to 22 of 22: start_share 2/22, count 21.
    """
    if steps < 1 or count < 1 or not 0.0 <= start_share <= 1.0:
        raise ValueError(f"no snapshots with {steps=}, {start_share=}, {count=}")
    if count == 1:
        return (steps,)
    span = 1.0 - start_share
    points = (steps * (start_share + span * i / (count - 1)) for i in range(count))
    return tuple(sorted({max(1, round(point)) for point in points}))
