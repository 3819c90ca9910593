"""What serves is lent to requests, replaced between two, stopped when nobody holds it."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from service.engine import Engine
from service.errors import ApiError
from service.jobs.evaluation_tools import EvaluationTools
from service.serving import Served, Serving
from service.tagger import Tagger
from tests.service.small_artefact import publish, weights

pytestmark = pytest.mark.anyio


class _Tagger:
    """Has a manifest and nothing else."""

    def __init__(self, root: Path, name: str) -> None:
        self.manifest = publish(root, name=name, clip=weights(len(name)))


class _Engine:
    """Counts how often it is stopped."""

    def __init__(self) -> None:
        self.stops = 0

    async def stop(self) -> None:
        """End nothing."""
        self.stops += 1


def _served(root: Path, name: str) -> tuple[Served, _Engine]:
    engine = _Engine()
    tagger = cast(Tagger, _Tagger(root, name))
    served = Served(tagger, cast(Engine, engine), evaluation=cast(EvaluationTools, object()))
    return served, engine


async def test_a_request_keeps_the_engine_it_began_with(tmp_path: Path) -> None:
    """Chosen at the first look, the same afterwards; later requests get the new one."""
    (old, engine), (new, _) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old)
    with serving.lend() as working, serving.lend() as uploading:
        assert working.present is old
        assert serving.replace(new) is old
        assert working.present is old
        assert uploading.present is new  # it had not begun
        with serving.lend() as later:
            assert later.present is new
        retiring = asyncio.create_task(serving.retire(old, patience_seconds=60, limit_seconds=60))
        await asyncio.sleep(0.05)
        assert (engine.stops, serving.resident) == (0, 2)
    await asyncio.wait_for(retiring, 60)
    assert (engine.stops, serving.resident) == (1, 1)


async def test_an_engine_that_nobody_holds_is_stopped_at_once(tmp_path: Path) -> None:
    """An upload that has not begun to work does not hold it."""
    (old, engine), (new, _) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old)
    with serving.lend():
        serving.replace(new)
        await asyncio.wait_for(serving.retire(old, patience_seconds=3600, limit_seconds=3600), 60)
    assert engine.stops == 1


async def test_evaluations_are_ended_when_the_patience_is_over(tmp_path: Path) -> None:
    """The job is told which artefact serves now, and the old engine is stopped after it."""
    (old, engine), (new, _) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old)
    ended = asyncio.Event()

    async def evaluate() -> None:
        async with serving.evaluating() as tools:
            assert tools is old.evaluation
            try:
                await asyncio.sleep(1000)
            finally:
                assert engine.stops == 0
                ended.set()

    job = asyncio.create_task(evaluate())
    await asyncio.sleep(0)
    serving.replace(new)
    await serving.retire(old, patience_seconds=0.1, limit_seconds=3600)
    with pytest.raises(ApiError) as caught:
        await job
    assert (caught.value.code, caught.value.limit) == ("model_changed", new.name)
    assert ended.is_set()
    assert engine.stops == 1


async def test_an_evaluation_that_ends_in_time_ends_well(tmp_path: Path) -> None:
    """Replacing what serves does not touch it, nor does what it raises change."""
    (old, _), (new, _) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old)
    async with serving.evaluating() as tools:
        serving.replace(new)
        assert tools is old.evaluation
    with pytest.raises(TimeoutError, match="its own"):
        async with serving.evaluating():
            raise TimeoutError("its own")
    with pytest.raises(asyncio.CancelledError):
        async with serving.evaluating():
            raise asyncio.CancelledError


async def test_what_never_lets_go_does_not_hold_the_memory_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After the limit the engine is stopped under it, and the log says so."""
    (old, engine), (new, _) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old, end_seconds=0.1)
    with serving.lend() as loan:
        assert loan.present is old
        serving.replace(new)
        await serving.retire(old, patience_seconds=0.05, limit_seconds=0.1)
    assert engine.stops == 1
    assert "is stopped under 1 requests" in caplog.text


async def test_stopping_the_service_stops_all_engines(tmp_path: Path) -> None:
    """The present one and those that still finish requests."""
    (old, first), (new, second) = _served(tmp_path, "a"), _served(tmp_path, "bb")
    serving = Serving(old)
    serving.replace(new)
    await serving.stop()
    assert (first.stops, second.stops) == (1, 1)
