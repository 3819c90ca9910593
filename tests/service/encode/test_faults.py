"""The encoder process: itself again after every fault, and clear about what cannot be served."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.encode.process import EncoderProcess
from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.frames import FrameSlots
from service.videoclip.manifest import ArtefactError
from tests.service import small_artefact
from tests.service.encode import faulty_worker
from tests.service.encode.started import CLIP, IDS, SHAPE, TUNED, fill, running
from tests.service.small_artefact import Arrays, publish

FAULTY = "tests.service.encode.faulty_worker"


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_worker_that_dies_idle_comes_back(tmp_path: Path, number: int) -> None:
    """It is not ready meanwhile, then serves the λ that was set last."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        fill(slots, slot)
        await encoder.set_clip_weight(0.25)
        before = await encoder.encode_clips(slot)
        assert encoder.pid is not None
        os.kill(encoder.pid, number)
        after = await encoder.encode_clips(slot)
        assert np.array_equal(before.vectors, after.vectors)
        assert after.clip_weight == 0.25
        assert encoder.restarts == 1
        assert encoder.ready


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says how the device of a faulty worker fails."""
    path = tmp_path / "faults"
    monkeypatch.setenv(faulty_worker.FAULTS, str(path))
    return path


async def _kill_while_it_hangs(encoder: EncoderProcess, faults: Path) -> None:
    """Kill the worker once a call is surely in it."""
    async with asyncio.timeout(90):
        while (pid := encoder.pid) is None or not faulty_worker.hanging(faults, pid).exists():
            await asyncio.sleep(0.01)
    faulty_worker.hanging(faults, pid).unlink()
    os.kill(pid, signal.SIGKILL)


@pytest.mark.anyio
async def test_work_in_flight_is_sent_once_more(tmp_path: Path, faults: Path) -> None:
    """A call that was in the worker when it died is answered by the next worker."""
    async with running(tmp_path / "store", module=FAULTY) as (encoder, _):
        faulty_worker.tell(faults, "hang")
        call = asyncio.create_task(encoder.encode_texts(IDS))
        await _kill_while_it_hangs(encoder, faults)
        faults.unlink()
        found = await call
        assert found.vectors == pytest.approx(small_artefact.expected_text(IDS, CLIP), abs=1e-5)
        assert encoder.restarts == 1


@pytest.mark.anyio
async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    """SIGSTOP: the call times out, is sent once more, and succeeds."""
    async with running(tmp_path) as (encoder, _):
        encoder._dispatcher._timeout_seconds = 0.5
        assert encoder.pid is not None
        os.kill(encoder.pid, signal.SIGSTOP)
        call = asyncio.create_task(encoder.encode_texts(IDS))
        async with asyncio.timeout(60):
            while encoder.alive:
                await asyncio.sleep(0.01)
        encoder._dispatcher._timeout_seconds = 60.0  # the next may be slow where much else runs
        assert len((await call).vectors) == 2
        assert encoder.restarts == 1


@pytest.mark.anyio
async def test_a_call_whose_worker_dies_twice_fails(tmp_path: Path, faults: Path) -> None:
    """The third time is never tried: the input may be what kills."""
    async with running(tmp_path / "store", module=FAULTY) as (encoder, _):
        faulty_worker.tell(faults, "hang")
        call = asyncio.create_task(encoder.encode_texts(IDS))
        for _ in range(2):
            await _kill_while_it_hangs(encoder, faults)
        with pytest.raises(EncoderError, match="died twice"):
            await call
        faults.unlink()
        assert len((await encoder.encode_texts(IDS)).vectors) == 2


@pytest.mark.anyio
async def test_a_cancelled_call_leaves_the_encoder_usable(tmp_path: Path) -> None:
    """Late answers are dropped and do not reach the next caller."""
    async with running(tmp_path) as (encoder, _):
        for _ in range(5):
            call = asyncio.create_task(encoder.encode_texts(np.tile(IDS, (500, 1))))
            await asyncio.sleep(0.003)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        found = await encoder.encode_texts(IDS)
        assert found.vectors == pytest.approx(small_artefact.expected_text(IDS, CLIP), abs=1e-5)


@pytest.mark.anyio
async def test_a_broken_input_is_one_failure_and_no_death(tmp_path: Path) -> None:
    """Token ids outside the vocabulary fail their call; the next one is answered."""
    async with running(tmp_path) as (encoder, _):
        with pytest.raises(EncoderError):
            await encoder.encode_texts(np.full((1, 3), 10**6, np.int64))
        assert len((await encoder.encode_texts(IDS)).vectors) == 2
        assert encoder.restarts == 0


def _break_graph(folder: Path) -> None:
    (folder / "video_encoder.onnx").write_bytes(b"\x00" * 10)


def _cut_weights(folder: Path) -> None:
    path = folder / "weights_tuned.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (_break_graph, "video_encoder.onnx"),
        (_cut_weights, "weights_tuned.safetensors"),
        (_lose_tokenizer, "tokenizer.json"),
    ],
)
async def test_a_damaged_artefact_is_one_clear_line(
    tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    """Start fails and names the file; no process is left."""
    manifest = publish(tmp_path)
    folder = tmp_path / manifest.name / manifest.revision
    damage(folder)
    slots = FrameSlots(1, slot_bytes=1 << 16)
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=1)
    with pytest.raises(ArtefactError) as caught:
        await encoder.start()
    assert str(caught.value).startswith(f"{file}: expected")
    assert "\n" not in str(caught.value)
    assert not encoder.alive
    slots.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"visual.proj": np.full((3, 8), np.nan, np.float32)}, "zero or not finite"),
        ({"visual.proj": np.zeros((4, 8), np.float32)}, "has shape"),
        ({"surplus": np.zeros(1, np.float32)}, "surplus is missing in CLIP"),
    ],
)
async def test_weights_that_do_not_work_are_refused(
    tmp_path: Path, change: Arrays, words: str
) -> None:
    """NaN, another shape, another key: the artefact is not served, and the line says why."""
    manifest = publish(tmp_path, clip=CLIP, tuned={**TUNED, **change}, activate=False, golden={})
    slots = FrameSlots(1, slot_bytes=1 << 16)
    folder = tmp_path / manifest.name / manifest.revision
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=1)
    with pytest.raises(ArtefactError, match=words):
        await encoder.start()
    slots.close()


@pytest.mark.anyio
async def test_a_lambda_that_does_not_work_keeps_the_old_one(tmp_path: Path) -> None:
    """One end point is NaN: λ = 1 serves, every other λ is refused and changes nothing."""
    bad = {**TUNED, "visual.bias": np.full(8, np.nan, np.float32)}
    manifest = publish(tmp_path, clip=CLIP, tuned=bad, activate=False, golden={})
    slots = FrameSlots(1, slot_bytes=1 << 16)
    folder = tmp_path / manifest.name / manifest.revision
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=1, clip_weight=1.0)
    await encoder.start()
    with pytest.raises(ArtefactError, match="zero or not finite"):
        await encoder.set_clip_weight(0.5)
    assert encoder.clip_weight == 1.0
    assert (await encoder.encode_texts(IDS)).clip_weight == 1.0
    await encoder.stop()
    slots.close()


@pytest.mark.anyio
async def test_a_stopped_encoder_says_so(tmp_path: Path) -> None:
    """Calls raise at once instead of waiting for a worker that will not come."""
    async with running(tmp_path) as (encoder, _):
        await encoder.stop()
        with pytest.raises(EncoderUnavailableError):
            await encoder.encode_texts(IDS)


@pytest.mark.anyio
async def test_stopping_wakes_calls_that_wait_for_a_worker(tmp_path: Path) -> None:
    """A call that waits while the worker is being replaced ends when the encoder is stopped."""
    async with running(tmp_path) as (encoder, _):
        assert encoder.pid is not None
        os.kill(encoder.pid, signal.SIGKILL)
        call = asyncio.create_task(encoder.encode_texts(IDS))
        await asyncio.sleep(0.05)
        await encoder.stop()
        with pytest.raises(EncoderError):
            async with asyncio.timeout(10):
                await call
