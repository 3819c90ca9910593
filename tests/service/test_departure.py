"""Leaving: unready, closed, gone; at once when told twice."""

import asyncio
import signal

import pytest

from service.departure import Departure

pytestmark = pytest.mark.anyio


class _Service:
    def __init__(self) -> None:
        self.steps: list[str] = []

    def drain(self) -> None:
        """Note it."""
        self.steps.append("drain")

    def close(self) -> None:
        """Note it."""
        self.steps.append("close")


class _Server:
    should_exit = False
    force_exit = False


def _departure(seconds: float) -> tuple[Departure, _Service, _Server]:
    service, server = _Service(), _Server()
    return Departure(server, service=service, drain_seconds=seconds), service, server


async def test_sigterm_is_unready_before_it_is_closed() -> None:
    """Requests are taken while load balancers still send them."""
    departure, service, server = _departure(0.05)
    departure.hear(signal.SIGTERM)
    assert (service.steps, server.should_exit) == (["drain"], False)
    await asyncio.sleep(0.2)
    assert service.steps == ["drain", "close"]
    assert (server.should_exit, server.force_exit) == (True, False)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 60.0), (signal.SIGTERM, 0.0)])
async def test_ctrl_c_does_not_wait(number: int, seconds: float) -> None:
    """Nor does SIGTERM where there is nothing to wait for."""
    departure, service, server = _departure(seconds)
    departure.hear(number)
    assert (service.steps, server.should_exit, server.force_exit) == (["close"], True, False)


async def test_a_second_signal_waits_for_nothing() -> None:
    """Not for load balancers, not for requests; the timer of the first does nothing any more."""
    departure, service, server = _departure(0.05)
    departure.hear(signal.SIGTERM)
    departure.hear(signal.SIGTERM)
    assert (server.should_exit, server.force_exit) == (True, True)
    await asyncio.sleep(0.2)
    assert service.steps == ["drain", "close"]
