"""Several devices, one encoder: they share what waits, and one that is lost costs nobody else."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service.channel import Header
from service.child import Child
from service.encode.cost import CostModel
from service.encode.instruments import watch_devices
from service.encode.process import EncoderProcess
from service.encode.residents import NoRoomError
from service.encode.station import Station
from service.encode.supervision import EncoderError
from service.frames import FrameSlots
from service.metrics import Metrics
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.encode.started import SHAPE, at, fill, running
from tests.service.small_artefact import publish

pytestmark = pytest.mark.anyio

TWO = ("cpu", "cpu")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.01)


def signal_to(station: Station, number: signal.Signals) -> None:
    """Send it to the worker that runs now."""
    assert station.worker.pid is not None
    os.kill(station.worker.pid, number)


def one_by_one(encoder: EncoderProcess) -> None:
    """Batches of one clip, whatever was measured: so that there is something to share."""
    encoder.batcher.costs["clips"] = CostModel()
    for size in (1, 2, 4, 8):
        encoder.batcher.costs["clips"].add(size, size * 1.0)


def right(encoder: EncoderProcess, pixels: npt.NDArray[np.uint8], clip_weight: float) -> Any:
    """What the vectors of `pixels` must be."""
    frames = normalize(pixels, encoder.manifest.preprocessing)
    return pytest.approx(small_artefact.expected_video(frames, at(clip_weight)), abs=1e-5)


async def stay_down(station: Station) -> None:
    """Kill its worker, and let none start until its setup is what it was."""
    station.worker._setup = replace(station.worker._setup, module="tests.no_such_module")
    signal_to(station, signal.SIGKILL)
    await until(lambda: station.state == "down")


def come_back(station: Station) -> None:
    """Let it start again."""
    station.worker._setup = replace(station.worker._setup, module="service.encode.worker")


async def test_two_devices_work_at_the_same_time(tmp_path: Path) -> None:
    """What waits goes to whichever is idle; the answers are those of the weights."""
    async with (
        running(tmp_path, devices=TWO) as (encoder, slots),
        slots.lease((1, *SHAPE[1:])) as slot,
    ):
        pixels = fill(slots, slot)
        one_by_one(encoder)
        for station in encoder.stations:
            await station.stop()
            signal_to(station, signal.SIGSTOP)
        calls = [asyncio.create_task(encoder.encode_clips(slot)) for _ in range(4)]
        await until(lambda: all(station.busy for station in encoder.stations))
        assert encoder.batcher.waiting_rows("clips") == 2
        assert encoder.backlog_seconds == pytest.approx(2.0, abs=0.9)  # 4 s of work, less what ran
        for station in encoder.stations:
            signal_to(station, signal.SIGCONT)
        for found in await asyncio.gather(*calls):
            assert found.vectors == right(encoder, pixels, 0.5)
        assert encoder.state == "ok"


async def test_a_device_that_hangs_and_dies_costs_its_own_batch_a_retry(tmp_path: Path) -> None:
    """The others are answered meanwhile; what it had is answered by the other device."""
    async with running(tmp_path, devices=TWO) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        first, second = encoder.stations
        await first.stop()
        signal_to(first, signal.SIGSTOP)
        lost = asyncio.create_task(encoder.encode_clips(slot))
        await until(lambda: first.busy)
        for _ in range(3):
            assert (await encoder.encode_clips(slot)).vectors == right(encoder, pixels, 0.5)
        assert not lost.done()
        await stay_down(first)
        assert (await lost).vectors == right(encoder, pixels, 0.5)
        assert (first.state, second.state, encoder.state) == ("down", "ok", "degraded")
        assert encoder.ready
        assert second.worker.restarts == 0


async def test_lambda_is_switched_while_a_device_is_down(tmp_path: Path) -> None:
    """It comes back with the λ that is served by then, and serves it alone when it must."""
    async with (
        running(tmp_path, devices=TWO, resident=1) as (encoder, slots),
        slots.lease(SHAPE) as slot,
    ):
        pixels = fill(slots, slot)
        first, second = encoder.stations
        await stay_down(first)
        await encoder.set_clip_weight(0.9)
        assert (await encoder.encode_clips(slot)).vectors == right(encoder, pixels, 0.9)
        come_back(first)
        await until(lambda: encoder.state == "ok")
        assert set(first.worker.scales) == set(second.worker.scales) == {0.9}
        await stay_down(second)
        found = await encoder.encode_clips(slot)
        assert (found.clip_weight, found.vectors) == (0.9, right(encoder, pixels, 0.9))


async def test_lambda_is_switched_while_a_device_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has loaded the λ of before is not taken for ready; the next one has the new."""
    async with running(tmp_path, devices=TWO) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        first, second = encoder.stations
        loaded, go_on = asyncio.Event(), asyncio.Event()
        real = first.worker._configure

        async def slowly(clip_weight: float) -> tuple[Child, Header]:
            made = await real(clip_weight)
            loaded.set()
            await go_on.wait()
            return made

        monkeypatch.setattr(first.worker, "_configure", slowly)
        signal_to(first, signal.SIGKILL)
        await loaded.wait()
        await encoder.set_clip_weight(0.9)
        go_on.set()
        await until(lambda: encoder.state == "ok")
        assert set(first.worker.scales) == {0.9}
        await stay_down(second)
        assert (await encoder.encode_clips(slot)).vectors == right(encoder, pixels, 0.9)


async def test_a_device_that_came_back_is_given_the_weights_that_are_waited_for(
    tmp_path: Path,
) -> None:
    """Before it takes work at a λ that it lacks; the other one serves that λ all the time."""
    async with (
        running(tmp_path, devices=TWO) as (encoder, slots),
        slots.lease((1, *SHAPE[1:])) as slot,
        encoder.hold(0.25),
    ):
        pixels = fill(slots, slot)
        one_by_one(encoder)
        first, second = encoder.stations
        assert set(first.worker.scales) == set(second.worker.scales) == {0.5, 0.25}
        signal_to(second, signal.SIGKILL)
        await until(lambda: second.worker.restarts == 1 and encoder.state == "ok")
        assert set(second.worker.scales) == {0.5}
        await first.stop()
        signal_to(first, signal.SIGSTOP)
        calls = [
            asyncio.create_task(encoder.encode_clips(slot, clip_weight=0.25)) for _ in range(3)
        ]
        await until(lambda: sum(call.done() for call in calls) == 2)
        assert set(second.worker.scales) == {0.5, 0.25}
        signal_to(first, signal.SIGCONT)
        for call in calls:
            assert (await call).vectors == right(encoder, pixels, 0.25)
        assert encoder.resident_clip_weights == (0.25, 0.5)


async def test_a_lambda_that_one_device_has_no_room_for_is_served_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch is refused, nothing of it stays anywhere, and the old λ serves on."""
    async with running(tmp_path, devices=TWO) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        first, second = encoder.stations
        real = second.worker.ask

        async def full(child: Child, header: Header, **options: Any) -> Any:
            if header["op"] == "build":
                return {"no_room": "8 MB, 7 are there"}, b""
            return await real(child, header, **options)

        monkeypatch.setattr(second.worker, "ask", full)
        with pytest.raises(NoRoomError, match="8 MB"):
            await encoder.set_clip_weight(0.9)
        assert set(first.worker.scales) == set(second.worker.scales) == {0.5}
        assert encoder.resident_clip_weights == (0.5,)
        assert (await encoder.encode_clips(slot)).vectors == right(encoder, pixels, 0.5)


async def test_weights_that_one_device_cannot_have_again_are_left_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came back and has no room for them now: asked once, not in a loop; all are answered."""
    async with (
        running(tmp_path, devices=TWO) as (encoder, slots),
        slots.lease(SHAPE) as slot,
        encoder.hold(0.25),
    ):
        pixels = fill(slots, slot)
        _, second = encoder.stations
        signal_to(second, signal.SIGKILL)
        await until(lambda: second.worker.restarts == 1 and encoder.state == "ok")
        asked: list[float] = []
        real = second.worker.ask

        async def full(child: Child, header: Header, **options: Any) -> Any:
            if header["op"] == "build":
                asked.append(header["clip_weight"])
                return {"no_room": "8 MB, 7 are there"}, b""
            return await real(child, header, **options)

        monkeypatch.setattr(second.worker, "ask", full)
        for _ in range(5):
            calls = (encoder.encode_clips(slot, clip_weight=0.25) for _ in range(4))
            for found in await asyncio.gather(*calls):
                assert found.vectors == right(encoder, pixels, 0.25)
        assert len(asked) <= 1
        assert set(second.worker.scales) == {0.5}


async def test_a_trial_goes_on_when_a_device_dies(tmp_path: Path) -> None:
    """Its calls are shared by the devices; the numbers are those of its λ to the end."""
    async with (
        running(tmp_path, devices=TWO) as (encoder, slots),
        slots.lease((400, *SHAPE[1:])) as slot,
    ):
        pixels = fill(slots, slot)
        first, second = encoder.stations
        async with encoder.trial(0.1) as trial:
            assert await trial.encode_clips(pixels) == right(encoder, pixels, 0.1)
            assert min(each.turns.background_calls for each in (first, second)) > 0
            await stay_down(first)
            assert await trial.encode_clips(pixels) == right(encoder, pixels, 0.1)
        assert (await encoder.encode_clips(slot)).vectors == right(encoder, pixels, 0.5)


async def test_both_devices_die_under_load_and_everything_is_answered(tmp_path: Path) -> None:
    """One after the other, again and again, while requests at two λ never pause."""
    async with running(tmp_path, devices=TWO) as (encoder, slots), AsyncExitStack() as stack:
        slot = await stack.enter_async_context(slots.lease(SHAPE))
        pixels = fill(slots, slot)
        done, answers = asyncio.Event(), 0

        async def ask(clip_weight: float) -> None:
            nonlocal answers
            while not done.is_set():
                found = await encoder.encode_clips(slot, clip_weight=clip_weight)
                assert found.vectors == right(encoder, pixels, clip_weight)
                assert found.clip_weight == clip_weight
                answers += 1

        clients = [asyncio.create_task(ask(weight)) for weight in (0.5, 0.25, 0.5)]
        for number, victim in enumerate((0, 1, 0)):
            wanted = answers + 20
            await until(lambda wanted=wanted: answers >= wanted)  # type: ignore[misc]
            signal_to(encoder.stations[victim], signal.SIGKILL)
            await until(lambda deaths=number + 1: encoder.restarts == deaths)  # type: ignore[misc]
            await until(lambda: encoder.state == "ok")
        done.set()
        await asyncio.gather(*clients)


async def test_a_device_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """All are there at the start, or it is refused in one line and no process is left."""
    others = set(psutil.Process().children())
    with pytest.raises(EncoderError, match=r"^VTAG_DEVICE: cuda:99 [^\n]+$"):
        async with running(tmp_path, devices=("cpu", "cuda:99")):
            pass
    assert set(psutil.Process().children()) <= others


@pytest.mark.parametrize(("devices", "threads"), [(1, 6), (2, 3), (4, 1), (9, 1)])
async def test_cores_are_shared_out_between_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, threads: int
) -> None:
    """Equally, for they share one cost model, and one at least; unless the number is given."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    manifest = publish(tmp_path)
    folder = tmp_path / manifest.name / manifest.revision
    slots = FrameSlots(1, slot_bytes=1 << 16)
    for asked, expected in ((None, threads), (5, 5)):
        encoder = EncoderProcess(
            folder, manifest=manifest, slots=slots, devices=["cpu"] * devices, threads=asked
        )
        found = {station.worker._setup.threads for station in encoder.stations}
        assert found == {expected}
    slots.close()


async def test_each_device_is_a_line_in_the_metrics(tmp_path: Path) -> None:
    """By its place in the list: whether it is up, and how often it was started again."""
    async with running(tmp_path, devices=TWO) as (encoder, _):
        metrics = Metrics()
        watch_devices(metrics, lambda: encoder.stations)
        await stay_down(encoder.stations[1])
        text = metrics.render().decode()
        assert 'vtag_encoder_device_up{device="0"} 1.0' in text
        assert 'vtag_encoder_device_up{device="1"} 0.0' in text
        assert 'vtag_encoder_device_busy{device="0"} 0.0' in text
        assert 'vtag_encoder_device_silence_seconds{device="1"}' in text
        assert 'vtag_encoder_device_restarts_total{device="0"} 0.0' in text
