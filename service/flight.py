"""Values that are being made once for all who want them, for as long as somebody does."""

import asyncio
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(eq=False, frozen=True)
class Waiter:
    """One request that waits for values.

    Attributes:
        keys: of the values that it wants.
        deadline: event-loop time at which they are worthless to it; None: never.
    """

    keys: Collection[str]
    deadline: float | None


@dataclass(eq=False)
class Flight(Generic[Value]):
    """What makes the values of some keys, and who waits for them.

    Attributes:
        futures: one for each key whose value is not there yet.
        waiters: requests that have not left; each wants some of the keys.
        task: makes the values; it is ended when the last waiter leaves.
    """

    futures: dict[str, asyncio.Future[Value]] = field(default_factory=dict)
    waiters: set[Waiter] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def wanted(self, keys: Sequence[str], *, most: int) -> list[str]:
        """Return the first `most` of `keys` that somebody waits for."""
        found = (key for key in keys if any(key in waiter.keys for waiter in self.waiters))
        return list(islice(found, most))

    def deadline(self, keys: Sequence[str]) -> float | None:
        """Return when the last of those who wait for any of `keys` needs no answer any more.

        None where one of them would wait for ever.
        """
        latest = -math.inf
        for waiter in self.waiters:
            if any(key in waiter.keys for key in keys):
                if waiter.deadline is None:
                    return None
                latest = max(latest, waiter.deadline)
        return latest

    def land(self, key: str, value: Value) -> None:
        """Give `value` to all who wait for `key`."""
        future = self.futures.pop(key, None)
        if future is not None and not future.done():
            future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Let all who still wait see `error`."""
        for future in self.futures.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever asked may have left: nothing to complain about
        self.futures.clear()
