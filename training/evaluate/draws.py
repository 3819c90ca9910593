"""Random halves of a data set's classes, as the papers drew them."""

import random
from collections.abc import Sequence

import numpy as np

EP1_SEED = 2023
DRAWS = 10


def open_vclip_draws(classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Open-VCLIP's ten halves (EP1), each in the order of `classes`.

    Python's generator, seeded once with 2023 for a data set, shuffles the positions of all classes
    ten times; a draw is the first half of them (50 of 101, 25 of 51). The published draws come out
    if `classes` is in the data set's own order.
    """
    generator = random.Random(EP1_SEED)
    draws = []
    for _ in range(DRAWS):
        positions = list(range(len(classes)))
        generator.shuffle(positions)
        draws.append(_first_half(classes, positions))
    return tuple(draws)


def text4vis_draws(classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Text4Vis's ten halves, each in the order of `classes`: numpy's old generator, seeds 0 to 9.

    The order in which a half's classes come changes no score.
    """
    count = len(classes)
    return tuple(
        _first_half(classes, np.random.RandomState(seed).permutation(count).tolist())
        for seed in range(DRAWS)
    )


def _first_half(classes: Sequence[str], positions: Sequence[int]) -> tuple[str, ...]:
    return tuple(classes[i] for i in sorted(positions[: len(classes) // 2]))
