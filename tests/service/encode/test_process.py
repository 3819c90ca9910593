"""The encoder process: right numbers at every λ, swapped without a restart, in turns."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from service.encode.cost import CostModel
from service.encode.work import Kind
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.encode.started import IDS, SHAPE, at, fill, running


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
    """Many clips in many batches, λ switched meanwhile: every answer is of the λ it names."""
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
            found = await encoder.encode_clips(slot)
            expected = small_artefact.expected_video(frames, at(found.clip_weight))
            assert found.vectors == pytest.approx(expected, abs=1e-5)
            seen.add(found.clip_weight)
        await switching
        seen.add((await encoder.encode_clips(slot)).clip_weight)
        assert len(seen) > 1


@pytest.mark.anyio
async def test_many_texts_and_a_video_take_turns(tmp_path: Path) -> None:
    """A clip that arrives after 10,000 texts is answered long before they are all done."""
    ids = np.tile(IDS, (5000, 1))
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        fill(slots, slot)
        costs: dict[Kind, tuple[float, float]] = {"clips": (0.0, 1e-3), "texts": (0.05, 1e-6)}
        for kind, (call_seconds, unit_seconds) in costs.items():  # whatever was measured
            encoder.batcher.costs[kind] = CostModel()
            for size in (1, 4, 16, 64, 256, 1024, 4096, 16384):
                for _ in range(8):
                    encoder.batcher.costs[kind].add(size, call_seconds + size * unit_seconds)
        texts = asyncio.create_task(encoder.encode_texts(ids))
        await asyncio.sleep(0)
        await encoder.encode_clips(slot)
        assert not texts.done()
        assert np.array_equal((await texts).vectors[:2], (await texts).vectors[-2:])


@pytest.mark.anyio
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
async def test_lambda_outside_its_range_is_refused(tmp_path: Path, value: float) -> None:
    """The error shows the value and the range."""
    async with running(tmp_path) as (encoder, _):
        with pytest.raises(ValueError, match="from 0 to 1"):
            await encoder.set_clip_weight(value)
