"""Weights between CLIP and the tuned model: theta = λ·theta_clip + (1 − λ)·theta_tuned.

Open-VCLIP (ICML 2023), equations 6 and 10; the same as WiSE-FT with α = 1 − λ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.generic]]


def interpolate(
    clip: Weights, tuned: Weights, *, clip_weight: float
) -> dict[str, NDArray[np.generic]]:
    """The weights at `clip_weight`, which is the share of the *original CLIP*.

    At 1 the arrays of `clip` and at 0 those of `tuned` are returned themselves, bit for bit, and
    so is every array that is not of floating point. Between them floats are mixed in float32 (in
    float64 if they are float64) and returned in their own type.

    Args:
        clip: name -> array, the original CLIP.
        tuned: name -> array, the fine-tuned model, alike in names, shapes and types.
        clip_weight: in [0, 1].

    Returns:
        A new dict in the order of `clip`. Its arrays may be those of the arguments.

    Raises:
        ValueError: `clip_weight` is outside [0, 1]; or the two sets of weights are not alike:
            the message lists every difference; or arrays of integers differ.
    """
    if not (math.isfinite(clip_weight) and 0.0 <= clip_weight <= 1.0):
        raise ValueError(f"clip_weight: {clip_weight} is not in [0, 1]")
    differences = _differences(clip, tuned)
    if differences:
        raise ValueError(
            f"the weights of CLIP and of the tuned model differ in {len(differences)} places: "
            + "; ".join(differences)
        )
    if clip_weight == 1.0:
        return dict(clip)
    if clip_weight == 0.0:
        return {name: tuned[name] for name in clip}
    return {name: _mix(clip[name], tuned[name], clip_weight) for name in clip}


def _mix(
    clip: NDArray[np.generic], tuned: NDArray[np.generic], clip_weight: float
) -> NDArray[np.generic]:
    if not np.issubdtype(clip.dtype, np.floating):
        return clip
    wide = np.float64 if clip.dtype == np.float64 else np.float32
    first: NDArray[np.floating] = clip.astype(wide, copy=False)
    second: NDArray[np.floating] = tuned.astype(wide, copy=False)
    mixed = second + (first - second) * clip_weight
    return mixed.astype(clip.dtype, copy=False)


def _differences(clip: Weights, tuned: Weights) -> list[str]:
    found = [f"{name} is missing in the tuned model" for name in clip if name not in tuned]
    found += [f"{name} is missing in CLIP" for name in tuned if name not in clip]
    for name, first in clip.items():
        second = tuned.get(name)
        if second is None:
            continue
        if first.shape != second.shape:
            found.append(f"{name} has shape {first.shape} in CLIP, {second.shape} in the tuned")
        if first.dtype != second.dtype:
            found.append(f"{name} has type {first.dtype} in CLIP, {second.dtype} in the tuned")
        elif (
            first.shape == second.shape
            and not np.issubdtype(first.dtype, np.floating)
            and not np.array_equal(first, second)
        ):
            found.append(f"{name} has type {first.dtype} and different values: no mean exists")
    return found
