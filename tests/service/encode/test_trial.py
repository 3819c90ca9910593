"""A network on trial: right numbers at its λ, and nothing of it in the answers that are served."""

import asyncio
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.encode.trial import TrialGoneError
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.encode.started import IDS, SHAPE, at, fill, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("clip_weight", [0.0, 0.3, 0.5, 1.0])
async def test_a_trial_computes_with_the_weights_at_its_lambda(
    tmp_path: Path, clip_weight: float
) -> None:
    """Frames and texts are what the weights at λ give, also where that λ is the served one."""
    async with (
        running(tmp_path, clip_weight=0.5, text_tower_tuned=True) as (encoder, slots),
        slots.lease(SHAPE) as slot,
    ):
        pixels = fill(slots, slot)
        async with encoder.trial(clip_weight) as trial:
            clips = await trial.encode_clips(pixels)
            texts = await trial.encode_texts(IDS)
    frames = normalize(pixels, encoder.manifest.preprocessing)
    assert clips == pytest.approx(small_artefact.expected_video(frames, at(clip_weight)), abs=1e-5)
    assert texts == pytest.approx(small_artefact.expected_text(IDS, at(clip_weight)), abs=1e-5)


async def test_the_served_answers_stay_byte_equal(tmp_path: Path) -> None:
    """Before, during and after a trial the served λ gives the same bytes and names itself."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        before = await encoder.encode_clips(slot)
        async with encoder.trial(0.0) as trial:
            tried = asyncio.create_task(trial.encode_clips(pixels))
            during = await encoder.encode_clips(slot)
            assert not np.array_equal(await tried, before.vectors)
        after = await encoder.encode_clips(slot)
        for found in (during, after):
            assert found.vectors.tobytes() == before.vectors.tobytes()
            assert found.clip_weight == 0.5


async def test_another_lambda_put_to_serve_ends_the_trial(tmp_path: Path) -> None:
    """There are never two networks beside the served one; whoever tries builds again."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        async with encoder.trial(0.1) as trial:
            expected = await trial.encode_clips(pixels)
            await encoder.set_clip_weight(0.9)
            with pytest.raises(TrialGoneError):
                await trial.encode_clips(pixels)
        async with encoder.trial(0.1) as trial:
            assert np.array_equal(await trial.encode_clips(pixels), expected)
        assert encoder.clip_weight == 0.9


async def test_a_trial_does_not_outlive_the_worker(tmp_path: Path) -> None:
    """After the death of the worker the trial says that it is gone; serving goes on."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        pixels = fill(slots, slot)
        async with encoder.trial(0.1) as trial:
            psutil.Process(encoder.pid).kill()
            with pytest.raises(TrialGoneError):
                await trial.encode_clips(pixels)
        assert (await encoder.encode_clips(slot)).clip_weight == 0.5


async def test_one_trial_at_a_time(tmp_path: Path) -> None:
    """A second one waits for the end of the first; one that is given up leaves nothing behind."""
    async with running(tmp_path) as (encoder, _):
        order: list[str] = []

        async def second() -> None:
            async with encoder.trial(0.2):
                order.append("second")

        async with encoder.trial(0.1):
            waiting = asyncio.create_task(second())
            await asyncio.sleep(0.2)
            order.append("first")
        await waiting
        given_up = asyncio.create_task(second())
        await asyncio.sleep(0)  # it has asked for its network, and cannot have the answer yet
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        async with encoder.trial(0.3) as trial:
            assert trial.clip_weight == 0.3
        assert order == ["first", "second"]
