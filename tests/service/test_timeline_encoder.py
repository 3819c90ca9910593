"""Long videos in chunks: the vectors of whole clips, each picture worked on once, little memory."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.deadline import DeadlineExceededError
from service.encode.process import EncoderProcess
from service.frames import Slot
from service.options import OptionError
from service.segments import Cutting
from service.timeline_encoder import EncodedSegment, TimelineEncoder, looks_at_frames_alone
from service.timeline_plan import SegmentPlan, SegmentPlanner
from service.videoclip.errors import TimeRange
from service.videoclip.manifest import Sampling
from service.videoclip.pooling import unit
from tests.drawn_video import draw_video
from tests.service.engine import LABELS, Engine, running
from tests.service.small_artefact import CLIP_BYTES, FRAMES
from tests.service.videoclip.test_shots import scene, write

ALONE = {"temporal": "none", "temporal_head": "none"}
TOGETHER = {"temporal": "neighbour"}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of four seconds, fifteen pictures each."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4", seconds=4.0)


class Watched:
    """An encoder that counts the clips that go through it."""

    def __init__(self, encoder: EncoderProcess) -> None:
        self._encoder = encoder
        self.clips = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    async def encode_clips(self, slot: Slot, **options: Any) -> Any:
        """Count, and encode."""
        self.clips += slot.shape[0]
        return await self._encoder.encode_clips(slot, **options)


@asynccontextmanager
async def encoding(
    root: Path, **options: Any
) -> AsyncIterator[tuple[Engine, SegmentPlanner, TimelineEncoder, Watched]]:
    """A timeline encoder on the parts of a running engine."""
    async with running(root, **options) as engine:
        watched = Watched(engine.encoder)
        planner = SegmentPlanner(engine.decoder, max_segments=50)
        encoder = TimelineEncoder(
            watched,  # type: ignore[arg-type] # all of it, and a counter
            decoder=engine.decoder,
            slots=engine.slots,
            planner=planner,
        )
        yield engine, planner, encoder, watched


async def _all(
    encoder: TimelineEncoder, path: Path, made: SegmentPlan, **options: Any
) -> list[EncodedSegment]:
    return [each async for each in encoder.encode(path, made, clip_weight=0.5, **options)]


UNIFORM = Sampling(frames=FRAMES)


@pytest.mark.anyio
@pytest.mark.parametrize("architecture", [ALONE, TOGETHER])
@pytest.mark.parametrize("clips_in_a_slot", [1, 3, 40])
async def test_segments_have_the_vectors_of_their_part_of_the_video(
    tmp_path: Path, video: Path, architecture: dict[str, str], clips_in_a_slot: int
) -> None:
    """Whatever the chunks are, and whether pictures are shared: as if each was sent alone."""
    async with encoding(
        tmp_path, slot_bytes=clips_in_a_slot * CLIP_BYTES, architecture=architecture
    ) as (engine, planner, encoder, _):
        cutting = Cutting("windows", 1.2, 0.8)
        made = await planner.plan(video, cutting=cutting, sampling=UNIFORM)
        found = await _all(encoder, video, made)
        assert made.count == len(found) == 8
        for segment in found:
            alone = await engine.tagger.classify(
                video, labels=LABELS, start=segment.start, end=segment.end
            )
            assert np.allclose(unit(segment.pooled), alone.embedding, atol=1e-4)
            assert segment.warnings == ()


@pytest.mark.anyio
async def test_a_picture_of_many_windows_is_encoded_once_where_that_is_exact(
    tmp_path: Path, video: Path
) -> None:
    """Windows on a grid of a third of their length show 12 pictures in 10 windows, not 30."""
    cutting = Cutting("windows", 1.0, 2 / 3)
    for name, architecture, clips in (("alone", ALONE, 4), ("together", TOGETHER, 10)):
        options: dict[str, Any] = {"slot_bytes": 40 * CLIP_BYTES, "architecture": architecture}
        async with encoding(tmp_path / name, **options) as (_, planner, encoder, watched):
            made = await planner.plan(video, cutting=cutting, sampling=UNIFORM)
            found = await _all(encoder, video, made)
            assert len(found) == 10
            frames = sum(segment.encoded_frames for segment in found)
            if architecture is ALONE:
                # Chunks of 2, 4 and 4 windows: no picture of an earlier chunk comes again.
                assert frames <= 14
                assert watched.clips <= clips + 2
            else:
                assert frames == 30
                assert watched.clips == clips


@pytest.mark.anyio
async def test_a_video_is_of_one_lambda_whatever_is_served_meanwhile(
    tmp_path: Path, video: Path
) -> None:
    """Also where only one λ may be resident: its weights stay until the last chunk has them."""
    async with encoding(tmp_path, slot_bytes=CLIP_BYTES, resident=1) as (
        engine,
        planner,
        encoder,
        _,
    ):
        made = await planner.plan(video, cutting=Cutting("windows", 0.5), sampling=UNIFORM)
        before = [each.pooled for each in await _all(encoder, video, made)]
        found = []
        async for segment in encoder.encode(video, made, clip_weight=0.5):
            found.append(segment.pooled)
            if len(found) == 1:
                await engine.tagger.set_clip_weight(0.1)
        assert np.allclose(found, before, atol=1e-5)
        assert engine.encoder.clip_weight == 0.1


@pytest.mark.anyio
async def test_a_slot_is_held_only_while_its_chunk_is_worked_on(
    tmp_path: Path, video: Path
) -> None:
    """Between two segments nothing is taken, however many there are; leaving leaves nothing."""
    async with encoding(tmp_path, slot_bytes=4 * CLIP_BYTES, architecture=TOGETHER) as parts:
        engine, planner, encoder, watched = parts
        made = await planner.plan(video, cutting=Cutting("windows", 0.2), sampling=UNIFORM)
        stream = encoder.encode(video, made, clip_weight=0.5)
        async for _ in stream:
            assert engine.slots.in_use == 0
            assert engine.slots.resident_bytes == 0
            if watched.clips >= 6:
                break
        await stream.aclose()
        assert watched.clips == 6, "the chunks after it were not begun"


@pytest.mark.anyio
@pytest.mark.parametrize("architecture", [ALONE, TOGETHER])
async def test_the_next_chunk_is_decoded_meanwhile(
    tmp_path: Path, video: Path, architecture: dict[str, str]
) -> None:
    """With room for it: the same segments in two slots at most; leaving leaves nothing."""
    cutting = Cutting("windows", 0.6, 0.4)
    options: dict[str, Any] = {"slot_bytes": 3 * CLIP_BYTES, "architecture": architecture}
    async with encoding(tmp_path / "one", **options) as (_, planner, encoder, _):
        made = await planner.plan(video, cutting=cutting, sampling=UNIFORM)
        expected = await _all(encoder, video, made)
    async with encoding(tmp_path / "two", slot_count=8, **options) as parts:
        engine, planner, encoder, watched = parts
        found, most = [], 0
        async for segment in encoder.encode(video, made, clip_weight=0.5):
            found.append(segment)
            most = max(most, engine.slots.in_use)
        assert engine.slots.in_use == 0
        assert most == 1, "only that of the next chunk is held between two segments"
        for one, other in zip(expected, found, strict=True):
            assert (one.start, one.end, one.warnings) == (other.start, other.end, other.warnings)
            assert one.encoded_frames == other.encoded_frames
            assert np.allclose(one.pooled, other.pooled, atol=1e-6)
        clips = watched.clips
        stream = encoder.encode(video, made, clip_weight=0.5)
        async for _ in stream:
            break
        await stream.aclose()
        assert engine.slots.in_use == 0
        assert watched.clips <= clips + 2, "the chunks after the first were not encoded"


@pytest.mark.anyio
async def test_shots_are_segments(tmp_path: Path) -> None:
    """Each from cut to cut; a longest length divides long ones."""
    lengths = [30, 60, 40]
    pictures = [scene(seed, number) for seed, n in enumerate(lengths) for number in range(n)]
    path = write(tmp_path / "film.mp4", pictures)
    async with encoding(tmp_path / "store") as (_, planner, encoder, _):
        made = await planner.plan(path, cutting=Cutting("shots", None), sampling=UNIFORM)
        assert made.count is None
        spans = [(s.start, s.end) for s in await _all(encoder, path, made)]
        assert np.ravel(spans) == pytest.approx([0, 1.2, 1.2, 3.6, 3.6, 5.2])
        made = await planner.plan(
            path, cutting=Cutting("shots", 1.0), sampling=UNIFORM, start=2.0, end=4.0
        )
        spans = [(s.start, s.end) for s in await _all(encoder, path, made)]
        assert np.ravel(spans) == pytest.approx([2, 3, 3, 3.6, 3.6, 4])


@pytest.mark.anyio
async def test_shots_over_the_limit_end_the_work(tmp_path: Path) -> None:
    """Nobody knew before how many there are."""
    path = write(tmp_path / "film.mp4", [scene(n // 15, n) for n in range(60)])
    async with encoding(tmp_path / "store") as (engine, _, _, _):
        planner = SegmentPlanner(engine.decoder, max_segments=2)
        made = await planner.plan(path, cutting=Cutting("shots", None), sampling=UNIFORM)
        with pytest.raises(OptionError) as caught:
            _ = [each async for each in planner.spans(path, made)]
        assert (caught.value.code, caught.value.limit) == ("too_many_segments", 2)


@pytest.mark.anyio
async def test_what_cannot_be_cut_is_refused_before_it_is_decoded(
    tmp_path: Path, video: Path
) -> None:
    """Too many windows, times of frames, a part outside the video, a passed deadline."""
    async with encoding(tmp_path) as (_, planner, encoder, watched):
        with pytest.raises(OptionError) as caught:
            await planner.plan(video, cutting=Cutting("windows", 1.0, 0.999), sampling=UNIFORM)
        assert (caught.value.code, caught.value.limit) == ("too_many_segments", 50)
        times = Sampling(mode="explicit", frames=FRAMES, times_seconds=(0.0, 1.0, 2.0))
        with pytest.raises(OptionError) as caught:
            await planner.plan(video, cutting=Cutting("windows", 1.0), sampling=times)
        assert caught.value.param == "sampling.mode"
        with pytest.raises(TimeRange):
            await planner.plan(video, cutting=Cutting("shots", None), sampling=UNIFORM, start=9.0)
        made = await planner.plan(video, cutting=Cutting("windows", 1.0), sampling=UNIFORM)
        with pytest.raises(DeadlineExceededError):
            await _all(encoder, video, made, deadline=time.monotonic())
        assert watched.clips == 0


@pytest.mark.anyio
async def test_damage_is_told_by_the_segments_that_have_it(tmp_path: Path) -> None:
    """The film ends in rubbish: early segments are fine, late ones say what they show."""
    path = write(tmp_path / "film.mp4", [scene(1, number) for number in range(100)])
    data = bytearray(path.read_bytes())
    first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
    spoiled = first + (last - first) * 3 // 5
    data[spoiled:last] = b"\xff" * (last - spoiled)
    path.write_bytes(data)
    async with encoding(tmp_path / "store", slot_bytes=2 * CLIP_BYTES) as (_, planner, encoder, _):
        made = await planner.plan(path, cutting=Cutting("windows", 0.5), sampling=UNIFORM)
        found = await _all(encoder, path, made)
        assert len(found) == made.count
        codes = [{warning.code for warning in segment.warnings} for segment in found]
        assert codes[0] == set()
        assert any("damaged_stream" in each for each in codes)


@pytest.mark.slow
@pytest.mark.anyio
async def test_which_networks_look_at_frames_alone(tmp_path: Path) -> None:
    """Neighbour attention, a temporal head, or an artefact that does not say: not alone."""
    for number, (architecture, expected) in enumerate(
        [
            (ALONE, True),
            ({"temporal": "none"}, True),
            (TOGETHER, False),
            ({"temporal": "none", "temporal_head": "t-trans"}, False),
            ({}, False),
        ]
    ):
        async with running(tmp_path / str(number), architecture=architecture) as engine:
            assert looks_at_frames_alone(engine.tagger.manifest) is expected
