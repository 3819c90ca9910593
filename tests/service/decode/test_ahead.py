"""One part ahead: in order, bounded, and nothing is left however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.decode.ahead import one_ahead

pytestmark = pytest.mark.anyio


@dataclass
class Decoder:
    """Notes what it was asked for, and what is held; fails at one item, or hangs at one."""

    begun: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    most: int = 0
    bad: int | None = None
    endless: int | None = None

    @asynccontextmanager
    async def decode(self, item: int) -> AsyncIterator[str]:
        """Hold the item while its text is used."""
        self.begun.append(item)
        self.held.add(item)
        self.most = max(self.most, len(self.held))
        try:
            await asyncio.sleep(0)
            if item == self.endless:
                await asyncio.Event().wait()
            if item == self.bad:
                raise ValueError(item)
            yield str(item)
        finally:
            self.held.discard(item)


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("room", [True, False])
async def test_the_next_part_is_decoded_while_one_is_used(room: bool) -> None:
    """Two are held at most; without room it is one, begun when it is asked for."""
    decoder, seen = Decoder(), []
    async with aclosing(one_ahead(_numbers(5), decode=decoder.decode, room=lambda: room)) as parts:
        async for part in parts:
            await _turns()
            seen.append((part.item, part.value))
            assert decoder.begun == list(range(min(5, part.item + (2 if room else 1))))
            await part.release()
            assert part.item not in decoder.held
            await part.release()
    assert seen == [(number, str(number)) for number in range(5)]
    assert (decoder.held, decoder.most) == (set(), 2 if room else 1)


async def test_an_error_comes_when_its_turn_comes() -> None:
    """What was before it is whole; what would have been after it is not begun."""
    decoder, seen = Decoder(bad=2), []

    async def use() -> None:
        async with aclosing(
            one_ahead(_numbers(5), decode=decoder.decode, room=lambda: True)
        ) as parts:
            async for part in parts:
                await _turns()
                seen.append(part.value)

    with pytest.raises(ValueError, match="2"):
        await use()
    assert seen == ["0", "1"]
    assert decoder.begun == [0, 1, 2]
    assert decoder.held == set()


@pytest.mark.parametrize("endless", [1, None])
async def test_who_stops_early_leaves_nothing(endless: int | None) -> None:
    """Neither what is used, nor what is ready, nor what is being decoded."""
    decoder = Decoder(endless=endless)
    async with aclosing(one_ahead(_numbers(5), decode=decoder.decode, room=lambda: True)) as parts:
        async for _ in parts:
            await _turns()
            break
    assert decoder.begun == [0, 1]
    assert decoder.held == set()


async def test_who_is_cancelled_leaves_nothing() -> None:
    """While it waits for a part that never comes."""
    decoder = Decoder(endless=0)

    async def use() -> None:
        async with aclosing(
            one_ahead(_numbers(5), decode=decoder.decode, room=lambda: True)
        ) as parts:
            async for _ in parts:
                pass

    using = asyncio.create_task(use())
    await _turns()
    assert decoder.held == {0}
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert decoder.held == set()


async def test_nothing_to_decode_is_nothing() -> None:
    """No part, no error."""
    decoder = Decoder()
    parts = one_ahead(_numbers(0), decode=decoder.decode, room=lambda: True)
    assert [part.item async for part in parts] == []
