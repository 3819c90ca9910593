"""Base-to-novel: which classes are base, and the mean that wants both halves (ViFi-CLIP, 4.2)."""

from collections import Counter
from collections.abc import Iterable

import numpy as np


def base_and_novel(
    labels: Iterable[str], *, seed: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Base: the more frequent half of the classes, rounded up; novel: the rest. Sorted by name.

    labels: one for each training video. seed: puts equally frequent classes, as all of HMDB-51's
    are, into a random order; without it the earlier name is base. Neither need be what a paper's
    own lists say.
    """
    counts = Counter(labels)
    names = sorted(counts)
    if seed is not None:
        names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    by_frequency = sorted(names, key=lambda name: -counts[name])
    half = (len(by_frequency) + 1) // 2
    return tuple(sorted(by_frequency[:half])), tuple(sorted(by_frequency[half:]))


def harmonic_mean(base: float, novel: float) -> float:
    """2·b·n / (b + n), and 0 when both are."""
    return 2.0 * base * novel / (base + novel) if base + novel > 0 else 0.0
