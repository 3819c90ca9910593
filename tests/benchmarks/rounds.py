"""Ways that are compared take turns, so that neighbours on the machine disturb all alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt

from tests.benchmarks.process_tree import ProcessTree

Work = Callable[[], Awaitable[object]]


async def take_turns(
    works: Sequence[Work], *, rounds: int, repeat: int = 1, others: ProcessTree | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return wall and processor seconds, (rounds, works) each.

    One round more runs first, which is not counted.

    Args:
        works: what is compared.
        rounds: how often each has its turn.
        repeat: how often it runs in one turn.
        others: processes whose processor time is counted beside that of this process.
    """

    def processor_seconds() -> float:
        # Others are counted in hundredths of a second.
        used = 0.0 if others is None else others.processor_seconds().total()
        return time.process_time() + used

    wall, processor = [], []
    for _ in range(rounds + 1):
        row = []
        for work in works:
            began, used = time.perf_counter(), processor_seconds()
            for _ in range(repeat):
                await work()
            row.append((time.perf_counter() - began, processor_seconds() - used))
        wall.append([seconds for seconds, _ in row])
        processor.append([seconds for _, seconds in row])
    return np.array(wall[1:]), np.array(processor[1:])


def spread(values: npt.NDArray[np.float64]) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:8.2f} ({low:.2f} to {high:.2f})"
