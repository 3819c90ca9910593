"""Turns: requests first, the background when nobody waits or has waited long enough."""

import asyncio

import pytest

from service.encode.turns import Turns

pytestmark = pytest.mark.anyio


async def test_requests_go_before_the_background() -> None:
    """While one call runs, a background call that came first stands back for later requests."""
    turns = Turns(patience_seconds=60)
    order: list[str] = []
    go_on = asyncio.Event()

    async def request(name: str) -> None:
        async with turns.request():
            order.append(name)
            await go_on.wait()

    async def background() -> None:
        async with turns.background():
            order.append("background")

    first = asyncio.create_task(request("first"))
    await asyncio.sleep(0)
    tasks = [first, asyncio.create_task(background())]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(request(name)) for name in ("second", "third")]
    await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "second", "third", "background"]
    assert turns.background_calls == 1


async def test_requests_that_never_pause_let_one_call_pass_in_a_while() -> None:
    """Under unbroken load the background gets one call per patience, so it comes to an end."""
    turns = Turns(patience_seconds=0.05)
    stop = asyncio.Event()

    async def requests() -> None:
        while not stop.is_set():
            async with turns.request():
                await asyncio.sleep(0.001)

    load = [asyncio.create_task(requests()) for _ in range(3)]
    await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(4):
        async with turns.background():
            pass
    taken = loop.time() - began
    stop.set()
    await asyncio.gather(*load)
    assert taken >= 4 * 0.05
    assert turns.background_calls == 4


async def test_a_request_that_leaves_does_not_hold_the_background_up() -> None:
    """The last request in line is cancelled just when the turn is free: the background goes on."""
    turns = Turns(patience_seconds=60)
    held = asyncio.Event()

    async def holder() -> None:
        async with turns.request():
            await held.wait()

    async def leaver() -> None:
        async with turns.request():
            raise AssertionError("it was cancelled before")

    async def background() -> None:
        async with turns.background():
            pass

    first = asyncio.create_task(holder())
    await asyncio.sleep(0)
    leaving = asyncio.create_task(leaver())
    waiting = asyncio.create_task(background())
    await asyncio.sleep(0)
    held.set()
    leaving.cancel()
    await asyncio.gather(first, leaving, return_exceptions=True)
    async with asyncio.timeout(5):
        await waiting
