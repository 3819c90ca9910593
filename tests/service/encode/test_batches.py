"""Batches of several requests in a real worker: only what is bad fails, faults are outlived."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from service.encode.cost import CostModel
from service.encode.dispatcher import BadOutputError, BatchRecord
from service.encode.instruments import BatchInstruments
from service.encode.process import EncoderProcess
from service.frames import FrameSlots, Slot, map_slot
from service.metrics import Metrics
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.encode import faulty_worker
from tests.service.encode.started import CLIP, IDS, at, running
from tests.service.small_artefact import FRAMES, SIZE, fragile_video_graph

pytestmark = pytest.mark.anyio

MODULE = "tests.service.encode.faulty_worker"
CLIPS = (2, FRAMES, SIZE, SIZE, 3)


@asynccontextmanager
async def leased(
    slots: FrameSlots, count: int
) -> AsyncIterator[list[tuple[Slot, npt.NDArray[np.uint8]]]]:
    """Slots with different pixels in them."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            slot = await stack.enter_async_context(slots.lease(CLIPS))
            pixels = np.random.default_rng(number).integers(64, 256, CLIPS, np.uint8)
            map_slot(slots.descriptor, slot=slot)[...] = pixels
            found.append((slot, pixels))
        yield found


def batching(encoder: EncoderProcess) -> list[BatchRecord]:
    """Have everything that waits go together; return where batches are recorded.

    What was measured so far is forgotten: on a busy machine it may call for small batches.
    """
    encoder.batcher.costs["clips"] = CostModel()
    for size in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(8):
            encoder.batcher.costs["clips"].add(size, 0.2 + size * 1e-4)
    records: list[BatchRecord] = []
    encoder.observe(records.append)
    return records


def check(
    encoder: EncoderProcess, pixels: npt.NDArray[np.uint8], vectors: npt.NDArray[np.float32]
) -> None:
    """The vectors are those of the pixels."""
    frames = normalize(pixels, encoder.manifest.preprocessing)
    expected = small_artefact.expected_video(frames, at(encoder.clip_weight))
    assert vectors == pytest.approx(expected, abs=1e-5)


async def _ask(
    encoder: EncoderProcess, slots: Sequence[Slot]
) -> list[npt.NDArray[np.float32] | BaseException]:
    answers = await asyncio.gather(
        *(encoder.encode_clips(slot) for slot in slots), return_exceptions=True
    )
    return [answer if isinstance(answer, BaseException) else answer.vectors for answer in answers]


async def test_clips_of_several_requests_run_together(tmp_path: Path) -> None:
    """One batch of whole requests, the answers apart again, and everything counted."""
    async with running(tmp_path) as (encoder, slots), leased(slots, 4) as clips:
        records = batching(encoder)
        for (_, pixels), vectors in zip(
            clips, await _ask(encoder, [slot for slot, _ in clips]), strict=True
        ):
            assert isinstance(vectors, np.ndarray)
            check(encoder, pixels, vectors)
        assert [(record.size, record.reason) for record in records] == [(8, "idle")]
        assert records[0].outcome == "ok"
        metrics = Metrics()
        BatchInstruments(metrics)(records[0])
        text = metrics.render().decode()
        assert 'vtag_batch_dispatch_total{kind="clips",reason="idle"} 1.0' in text
        assert 'vtag_batch_items_bucket{kind="clips",le="8.0"} 1.0' in text
        assert records[0].fill == 8 / 64
        assert 'vtag_batch_fill_ratio_bucket{kind="clips",le="0.2"} 1.0' in text
        [station] = encoder.stations
        assert station.busy_seconds >= records[0].seconds - 0.01


async def test_one_bad_clip_fails_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    """NaN for one of four requests in a batch: it is tried once more, then it alone has failed."""
    async with (
        running(tmp_path, video_graph=fragile_video_graph()) as (encoder, slots),
        leased(slots, 4) as clips,
    ):
        alone = await _ask(encoder, [slot for slot, _ in clips])
        map_slot(slots.descriptor, slot=clips[2][0])[...] = 0
        records = batching(encoder)
        answers = await _ask(encoder, [slot for slot, _ in clips])
        assert isinstance(answers[2], BadOutputError)
        for number in (0, 1, 3):
            assert answers[number] == pytest.approx(alone[number], abs=1e-5)
        outcomes = [(record.size, record.outcome) for record in records]
        assert outcomes == [(8, "bad_output"), (2, "bad_output")]
        assert encoder.restarts == 0
        assert encoder.ready


async def test_a_batch_without_memory_is_cut_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with room for three clips: all are answered, and later batches are as small."""
    faults = tmp_path / "faults"
    monkeypatch.setenv(faulty_worker.FAULTS, str(faults))
    async with (
        running(tmp_path / "store", module=MODULE) as (encoder, slots),
        leased(slots, 4) as clips,
    ):
        records = batching(encoder)
        faults.write_text("memory 3")
        for _ in range(2):
            for (_, pixels), vectors in zip(
                clips, await _ask(encoder, [slot for slot, _ in clips]), strict=True
            ):
                assert isinstance(vectors, np.ndarray)
                check(encoder, pixels, vectors)
        outcomes = [(record.size, record.outcome) for record in records]
        assert outcomes[:2] == [(8, "memory"), (4, "memory")]
        assert {outcome for _, outcome in outcomes[3:]} <= {"ok", "memory"}
        assert encoder.batcher.caps["clips"].value == 2
        assert all(size <= 2 for size, _ in outcomes[-4:])
        assert encoder.restarts == 0


async def test_a_clip_that_never_fits_is_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for a single clip: an error, soon, and no loop without an end."""
    faults = tmp_path / "faults"
    monkeypatch.setenv(faulty_worker.FAULTS, str(faults))
    async with (
        running(tmp_path / "store", module=MODULE) as (encoder, slots),
        leased(slots, 2) as clips,
    ):
        faults.write_text("memory 0")
        async with asyncio.timeout(60):
            answers = await _ask(encoder, [slot for slot, _ in clips])
        assert all(isinstance(answer, Exception) for answer in answers)
        assert "allocate memory" in str(answers[0])
        faults.unlink()
        assert isinstance((await _ask(encoder, [clips[0][0]]))[0], np.ndarray)


async def test_a_lost_device_ends_the_process_and_the_work_runs_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An illegal memory access: a new process, and every request in the batch is answered."""
    faults = tmp_path / "faults"
    monkeypatch.setenv(faulty_worker.FAULTS, str(faults))
    async with (
        running(tmp_path / "store", module=MODULE) as (encoder, slots),
        leased(slots, 3) as clips,
    ):
        records = batching(encoder)
        first = encoder.pid
        faults.write_text("lost once")
        for (_, pixels), vectors in zip(
            clips, await _ask(encoder, [slot for slot, _ in clips]), strict=True
        ):
            assert isinstance(vectors, np.ndarray)
            check(encoder, pixels, vectors)
        assert encoder.pid != first
        assert encoder.restarts == 1
        assert records[0].outcome == "death"
        assert [record.size for record in records[1:]] == [2, 2, 2]


async def test_a_device_that_stays_lost_is_started_again_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hot loop: requests fail or wait, starts are seconds apart, and it comes back."""
    faults = tmp_path / "faults"
    monkeypatch.setenv(faulty_worker.FAULTS, str(faults))
    async with (
        running(tmp_path / "store", module=MODULE) as (encoder, slots),
        leased(slots, 1) as [(slot, pixels)],
    ):
        faults.write_text("lost")  # at the golden check of each new process, too
        call = asyncio.create_task(encoder.encode_clips(slot))
        began = time.monotonic()
        while encoder.restarts < 3:
            await asyncio.sleep(0.02)
        assert time.monotonic() - began >= 0.1 + 0.2 + 0.4
        assert not encoder.ready
        faults.unlink()
        check(encoder, pixels, (await call).vectors)
        assert encoder.ready


async def test_requests_that_left_are_not_run(tmp_path: Path) -> None:
    """Cancelled while a long call runs: their clips never reach the worker."""
    async with running(tmp_path) as (encoder, slots), leased(slots, 3) as clips:
        records = batching(encoder)
        await encoder.stations[0].stop()  # or it is the one that asks
        pid = encoder.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        texts = asyncio.create_task(encoder.encode_texts(IDS))
        async with asyncio.timeout(60):
            while encoder.batcher.waiting_rows("texts") or not encoder.stations[0].busy:
                await asyncio.sleep(0.01)
        calls = [asyncio.create_task(encoder.encode_clips(slot)) for slot, _ in clips]
        await asyncio.sleep(0)
        for call in calls[:2]:
            call.cancel()
        os.kill(pid, signal.SIGCONT)
        check(encoder, clips[2][1], (await calls[2]).vectors)
        await texts
        assert [record.size for record in records if record.kind == "clips"] == [2]
        assert encoder.batcher.backlog_seconds() == 0


async def test_a_request_that_leaves_between_two_batches_runs_no_more(tmp_path: Path) -> None:
    """Its client goes when the first of many batches is done: the others are never sent."""
    shape = (40, *CLIPS[1:])
    async with running(tmp_path) as (encoder, slots), slots.lease(shape) as slot:
        encoder.batcher.costs["clips"] = CostModel()
        for size in (1, 2, 4, 8, 16, 32, 64):  # many at once are no cheaper: one by one
            encoder.batcher.costs["clips"].add(size, size * 0.01)
        call = asyncio.create_task(encoder.encode_clips(slot))
        sizes: list[int] = []

        def leave(record: BatchRecord) -> None:
            sizes.append(record.size)
            call.cancel()

        encoder.observe(leave)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(await _ask(encoder, [slot])) == 1
        assert sizes[0] < 40
        assert sum(sizes) == sizes[0] + 40, "of the first call one batch, of the second all"


async def test_an_odd_answer_does_not_end_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody thought of fails its requests; the next ones are answered."""
    async with running(tmp_path) as (encoder, slots), leased(slots, 1) as [(slot, pixels)]:
        worker = encoder.stations[0].worker
        real = worker.ask

        async def odd(*_: object, **__: object) -> object:
            return {"surprise": 1}, b"123"

        monkeypatch.setattr(worker, "ask", odd)
        with pytest.raises(KeyError):
            await encoder.encode_clips(slot)
        monkeypatch.setattr(worker, "ask", real)
        check(encoder, pixels, (await encoder.encode_clips(slot)).vectors)
        assert encoder.ready


async def test_texts_of_several_requests_share_a_batch(tmp_path: Path) -> None:
    """Equal lengths together, each answer its own."""
    async with running(tmp_path) as (encoder, _):
        encoder.batcher.costs["texts"] = CostModel()
        for size in (4, 8, 64, 512, 4096):
            for _ in range(8):
                encoder.batcher.costs["texts"].add(size, 0.2 + size * 1e-6)
        records: list[BatchRecord] = []
        encoder.observe(records.append)
        asked = [IDS, IDS[:1], IDS[::-1]]
        found = await asyncio.gather(*(encoder.encode_texts(ids) for ids in asked))
        for ids, answer in zip(asked, found, strict=True):
            expected = small_artefact.expected_text(ids, CLIP)
            assert answer.vectors == pytest.approx(expected, abs=1e-5)
        assert [record.size for record in records] == [5]
