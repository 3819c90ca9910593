"""The encoder process: right numbers at every λ, and itself again after every fault."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from service.encode.process import EncoderProcess, StaleWeightsError
from service.encode.supervision import EncoderError, EncoderUnavailableError
from service.frames import FrameSlots, Slot, map_slot
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import ArtefactError
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.small_artefact import FRAMES, SIZE, Arrays, publish, weights

CLIP, TUNED = weights(1), weights(2, logit_scale=40.0)
SHAPE = (4, FRAMES, SIZE, SIZE, 3)
IDS = np.array([[512, 5, 6, 513], [512, 7, 513, 0]], np.int64)


@asynccontextmanager
async def running(
    root: Path, *, text_tower_tuned: bool = False, **options: Any
) -> AsyncIterator[tuple[EncoderProcess, FrameSlots]]:
    """A started encoder of the small artefact, ended afterwards."""
    manifest = publish(root, clip=CLIP, tuned=TUNED, text_tower_tuned=text_tower_tuned)
    slots = FrameSlots(2, slot_bytes=1 << 20)
    folder = root / manifest.name / manifest.revision
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=1, **options)
    await encoder.start()
    try:
        yield encoder, slots
    finally:
        pid = encoder.pid
        await encoder.stop()
        slots.close()
        assert pid is None or not psutil.pid_exists(pid)


def fill(slots: FrameSlots, slot: Slot) -> npt.NDArray[np.uint8]:
    """Random pixels in the slot."""
    pixels = np.random.default_rng(3).integers(0, 256, slot.shape, np.uint8)
    map_slot(slots.descriptor, slot=slot)[...] = pixels
    return pixels


def at(clip_weight: float) -> Arrays:
    """Weights at λ, computed here."""
    mixed = interpolate(CLIP, TUNED, clip_weight=clip_weight)
    return {name: np.asarray(value, np.float32) for name, value in mixed.items()}


@pytest.mark.anyio
@pytest.mark.parametrize("clip_weight", [0.0, 0.3, 1.0])
async def test_embeddings_are_those_of_the_interpolated_weights(
    tmp_path: Path, clip_weight: float
) -> None:
    """Frames, texts and logit scale are what the weights at λ give; the ends are the end points."""
    async with (
        running(tmp_path, clip_weight=clip_weight, text_tower_tuned=True) as (encoder, slots),
        slots.lease(SHAPE) as slot,
    ):
        pixels = fill(slots, slot)
        clips = await encoder.encode_clips(slot)
        texts = await encoder.encode_texts(IDS)
    frames = normalize(pixels, encoder.manifest.preprocessing)
    end = at(clip_weight)
    assert clips.vectors == pytest.approx(small_artefact.expected_video(frames, end), abs=1e-5)
    assert texts.vectors == pytest.approx(small_artefact.expected_text(IDS, end), abs=1e-5)
    assert clips.logit_scale == pytest.approx(float(np.exp(end["logit_scale"])))
    assert clips.clip_weight == texts.clip_weight == clip_weight


@pytest.mark.anyio
async def test_lambda_changes_without_a_restart_and_comes_back(tmp_path: Path) -> None:
    """The same process answers with the new weights, and says so; 1 and 0 are the end points."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        frames = normalize(fill(slots, slot), encoder.manifest.preprocessing)
        pid = encoder.pid
        before = await encoder.encode_clips(slot)
        for value in (1.0, 0.0, 0.12345, 0.5):
            space = await encoder.set_clip_weight(value)
            found = await encoder.encode_clips(slot)
            expected = small_artefact.expected_video(frames, at(round(value, 4)))
            assert found.vectors == pytest.approx(expected, abs=1e-5)
            assert found.clip_weight == space.clip_weight == round(value, 4)
        assert np.array_equal(found.vectors, before.vectors)
        assert encoder.pid == pid
        assert encoder.space.id == f"small@{encoder.manifest.revision}/0.5"


@pytest.mark.anyio
async def test_no_answer_mixes_weights_while_lambda_changes(tmp_path: Path) -> None:
    """Many clips in many pieces, λ switched meanwhile: every answer is of the λ it names."""
    shape = (200, *SHAPE[1:])
    async with running(tmp_path) as (encoder, slots), slots.lease(shape) as slot:
        frames = normalize(fill(slots, slot), encoder.manifest.preprocessing)
        stop = asyncio.Event()

        async def switch() -> None:
            for number in range(10):
                await encoder.set_clip_weight(number / 10)
            stop.set()

        switching = asyncio.create_task(switch())
        seen = set()
        while not stop.is_set():
            try:
                found = await encoder.encode_clips(slot)
            except StaleWeightsError:
                continue
            expected = small_artefact.expected_video(frames, at(found.clip_weight))
            assert found.vectors == pytest.approx(expected, abs=1e-5)
            seen.add(found.clip_weight)
        await switching
        assert len(seen) > 1


@pytest.mark.anyio
async def test_an_answer_of_another_lambda_is_refused(tmp_path: Path) -> None:
    """A caller that needs one λ gets it or an error; a text tower without λ always answers."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        fill(slots, slot)
        with pytest.raises(StaleWeightsError):
            await encoder.encode_clips(slot, clip_weight=0.9)
        assert len((await encoder.encode_texts(IDS, clip_weight=0.9)).vectors) == 2


@pytest.mark.anyio
async def test_a_tuned_text_tower_refuses_another_lambda(tmp_path: Path) -> None:
    """Text vectors depend on λ there."""
    async with running(tmp_path, text_tower_tuned=True) as (encoder, _):
        with pytest.raises(StaleWeightsError):
            await encoder.encode_texts(IDS, clip_weight=0.9)


@pytest.mark.anyio
async def test_many_texts_and_a_video_take_turns(tmp_path: Path) -> None:
    """A clip that arrives after 10,000 texts is answered long before they are all done."""
    ids = np.tile(IDS, (5000, 1))
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        fill(slots, slot)
        texts = asyncio.create_task(encoder.encode_texts(ids))
        await asyncio.sleep(0)
        await encoder.encode_clips(slot)
        assert not texts.done()
        assert np.array_equal((await texts).vectors[:2], (await texts).vectors[-2:])


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


@pytest.mark.anyio
async def test_work_in_flight_is_sent_once_more(tmp_path: Path) -> None:
    """A call that was in the worker when it died is answered by the next worker."""
    ids = np.tile(IDS, (5000, 1))
    async with running(tmp_path) as (encoder, _):
        call = asyncio.create_task(encoder.encode_texts(ids))
        await asyncio.sleep(0.02)
        assert encoder.pid is not None
        os.kill(encoder.pid, signal.SIGKILL)
        assert len((await call).vectors) == len(ids)


@pytest.mark.anyio
async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    """SIGSTOP: the call times out, is sent once more, and succeeds."""
    async with running(tmp_path, call_timeout_seconds=0.5) as (encoder, _):
        assert encoder.pid is not None
        os.kill(encoder.pid, signal.SIGSTOP)
        assert len((await encoder.encode_texts(IDS)).vectors) == 2
        assert encoder.restarts == 1


@pytest.mark.anyio
async def test_a_call_whose_worker_dies_twice_fails(tmp_path: Path) -> None:
    """The third time is never tried: the input may be what kills."""
    async with running(tmp_path, call_timeout_seconds=60) as (encoder, _):

        async def keep_killing() -> None:
            pid = None
            for _ in range(2):
                while not encoder.ready or encoder.pid == pid:
                    await asyncio.sleep(0.005)
                pid = encoder.pid
                assert pid is not None
                await asyncio.sleep(0.05)
                os.kill(pid, signal.SIGKILL)

        killing = asyncio.create_task(keep_killing())
        with pytest.raises(EncoderError, match="died twice"):
            await encoder.encode_texts(np.zeros((64, 200_000), np.int64))  # takes a while
        await killing
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
    manifest = publish(tmp_path, clip=CLIP, tuned={**TUNED, **change}, activate=False)
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
    manifest = publish(tmp_path, clip=CLIP, tuned=bad, activate=False)
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
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
async def test_lambda_outside_its_range_is_refused(tmp_path: Path, value: float) -> None:
    """The error shows the value and the range."""
    async with running(tmp_path) as (encoder, _):
        with pytest.raises(ValueError, match="from 0 to 1"):
            await encoder.set_clip_weight(value)


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
