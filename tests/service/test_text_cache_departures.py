"""Requests that leave while their vectors are made: nothing for them, everything for the rest."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from service.deadline import DeadlineExceededError, until
from tests.service.test_text_cache import Encoder, get, opened, settle

KEYS = [str(number) for number in range(12)]


def closed() -> Encoder:
    """An encoder that answers nothing yet."""
    encoder = Encoder()
    encoder.open.clear()
    return encoder


async def until_true(condition: Callable[[], bool]) -> None:
    """Let others run until it is."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.anyio
async def test_nothing_is_made_when_all_have_left() -> None:
    """The flight ends without its next piece, though nobody lets the encoder answer."""
    encoder = closed()
    async with opened() as cache:
        leaving = [asyncio.create_task(get(cache, KEYS, encoder)) for _ in range(3)]
        await until_true(lambda: bool(encoder.asked))
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await settle(cache)
        assert encoder.asked == KEYS[:4]


@pytest.mark.anyio
async def test_who_comes_when_the_last_one_leaves_has_a_flight_of_its_own() -> None:
    """Nobody is answered by a flight that is being ended."""
    encoder = closed()
    async with opened() as cache:
        leaving = asyncio.create_task(get(cache, KEYS, encoder))
        await until_true(lambda: bool(encoder.asked))
        leaving.cancel()
        await asyncio.wait([leaving])
        encoder.open.set()
        assert (await get(cache, KEYS, encoder))[1] == 0


@pytest.mark.anyio
async def test_between_pieces_only_what_is_wanted_is_made() -> None:
    """One of two leaves: the keys that only it wanted are left out, and can be had later."""
    encoder = closed()
    async with opened() as cache:
        leaving = asyncio.create_task(get(cache, KEYS, encoder))
        staying = asyncio.create_task(get(cache, KEYS[8:], encoder))
        await until_true(lambda: bool(encoder.asked))
        leaving.cancel()
        await asyncio.wait([leaving])
        encoder.open.set()
        await staying
        await settle(cache)
        assert encoder.asked == KEYS[:4] + KEYS[8:]
        assert (await get(cache, KEYS, encoder))[1] == 8


@pytest.mark.anyio
async def test_a_piece_has_the_deadline_of_the_last_who_waits() -> None:
    """Not of who asked first; none where one would wait for ever; only of those who want it."""
    encoder = closed()
    now = time.monotonic()
    async with opened() as cache:
        asking = [
            asyncio.create_task(get(cache, keys, encoder, step=1, deadline=deadline))
            for keys, deadline in [
                (["a", "b", "c"], now + 60),
                (["b", "c"], now + 90),
                (["b", "c"], now + 80),
                (["c"], None),
            ]
        ]
        await until_true(lambda: bool(encoder.asked))
        asking[1].cancel()
        await asyncio.wait([asking[1]])
        encoder.open.set()
        await asyncio.gather(asking[0], *asking[2:])
        assert encoder.asked == ["a", "b", "c"]
        assert encoder.deadlines == [now + 60, now + 80, None]


@pytest.mark.anyio
async def test_who_joined_is_not_left_with_a_deadline_that_has_passed() -> None:
    """The first request's time is over in the middle of a piece: it is asked for by the other's."""
    encoder = closed()
    soon, later = time.monotonic() + 0.05, time.monotonic() + 60

    async def first() -> None:
        async with until(soon):
            await get(cache, ["a"], encoder, deadline=soon)

    async with opened() as cache:
        leaving = asyncio.create_task(first())
        await until_true(lambda: bool(encoder.asked))
        staying = asyncio.create_task(get(cache, ["a"], encoder, deadline=later))
        with pytest.raises(DeadlineExceededError):
            await leaving
        await until_true(lambda: encoder.deadlines[-1] == later)
        encoder.open.set()
        await staying


@pytest.mark.anyio
async def test_who_waits_beyond_its_deadline_is_answered() -> None:
    """The deadline orders work; to end the wait is the caller's business."""
    encoder = Encoder(seconds=0.01)
    async with opened() as cache:
        await get(cache, KEYS, encoder, deadline=time.monotonic() - 1)
        assert encoder.asked == KEYS


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(10))
async def test_leavers_never_break_the_answers_of_others(seed: int) -> None:
    """Whoever comes, wants and leaves in whatever order: who stays has right vectors."""
    draw = random.Random(seed)
    encoder = Encoder()
    async with opened(capacity=6) as cache:

        async def ask() -> None:
            for _ in range(draw.randrange(20)):
                await asyncio.sleep(0)
            deadline = draw.choice([None, time.monotonic() + draw.choice([-1, 0.001, 60])])
            keys = draw.sample(KEYS, draw.randint(1, 12))
            await get(cache, keys, encoder, step=draw.randint(1, 3), deadline=deadline)

        tasks = [asyncio.create_task(ask()) for _ in range(40)]
        leaving = draw.sample(tasks, 20)
        for task in leaving:
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*(task for task in tasks if task not in leaving))
        await settle(cache)
        assert not cache._flights
