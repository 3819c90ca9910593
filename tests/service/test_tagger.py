"""The one path, with a real decoder, a real encoder and a small artefact."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.labels import LabelError, LabelQuery
from service.options import OptionError
from service.segments import Cutting
from service.store import ArtefactStore
from service.videoclip.decoding import Limits
from service.videoclip.errors import TimeRange, VideoTooLong
from service.videoclip.manifest import Sampling
from tests.drawn_video import draw_video
from tests.service.engine import LABELS, running
from tests.service.small_artefact import CLIP_BYTES, FRAMES, weights
from tests.service.videoclip.test_shots import shots, write

WINDOWS = Cutting("windows", 0.25)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


@pytest.mark.anyio
async def test_a_video_is_tagged(tmp_path: Path, video: Path) -> None:
    """All labels come back, best first, with times, space, timings and facts of the video."""
    async with running(tmp_path) as engine:
        answer = await engine.tagger.classify(video, labels=LABELS)
        assert {tag.label for tag in answer.tags} == {label.text[0] for label in LABELS}
        assert sum(tag.score for tag in answer.tags) == pytest.approx(1)
        assert answer.frames == FRAMES == len(answer.frames_used)
        assert all(0 <= second < 2 for second in answer.frames_used)
        assert (answer.video.width, answer.video.codec) == (160, "h264")
        assert answer.space == engine.tagger.space
        assert np.linalg.norm(answer.embedding) == pytest.approx(1, abs=1e-5)
        assert set(answer.timings_seconds) >= {"decode", "encode", "text", "score", "total"}
        assert answer.text_cache_hits == 0
        again = await engine.tagger.classify(video, labels=LABELS, top_k=1)
        assert again.text_cache_hits == 3
        assert again.tags == answer.tags[:1]


@pytest.mark.anyio
async def test_scores_are_those_of_the_parts(tmp_path: Path, video: Path) -> None:
    """Embedding and text vectors asked separately give the cosines of the answer."""
    async with running(tmp_path, pooling="mean_then_normalize") as engine:
        answer = await engine.tagger.classify(video, labels=LABELS, scores="cosine")
        vector = (await engine.tagger.videos.embed_video(video)).vector
        texts = await engine.tagger.embed_texts([label.text[0] for label in LABELS])
        expected = dict(zip((q.text[0] for q in LABELS), texts.vectors @ vector, strict=True))
        for tag in answer.tags:
            assert tag.score == pytest.approx(float(expected[tag.label]), abs=1e-5)
        assert texts.space == answer.space


@pytest.mark.anyio
async def test_texts_become_classifiers_through_templates(tmp_path: Path) -> None:
    """Unit mean of unit sentence vectors, as the recipe says."""
    async with running(tmp_path, clip=weights(1)) as engine:
        found = await engine.tagger.embed_texts(["dog"], templates=["a {}", "a {}?"])
        alone = [await engine.tagger.embed_texts([text]) for text in ("a dog", "a dog?")]
        mean = alone[0].vectors + alone[1].vectors
        # Sentences of one call are padded to one length, which this text tower sees a little.
        assert found.vectors == pytest.approx(mean / np.linalg.norm(mean), abs=0.2)
        assert np.linalg.norm(found.vectors) == pytest.approx(1, abs=1e-5)


@pytest.mark.anyio
async def test_lambda_changes_answers_without_a_restart(tmp_path: Path, video: Path) -> None:
    """Another λ, another embedding, another space; back again, the first embedding."""
    async with running(tmp_path) as engine:
        first = await engine.tagger.classify(video, labels=LABELS)
        await engine.tagger.set_clip_weight(0.0)
        second = await engine.tagger.classify(video, labels=LABELS)
        await engine.tagger.set_clip_weight(0.5)
        third = await engine.tagger.classify(video, labels=LABELS, clip_weight=0.5)
        assert second.space.clip_weight == 0.0
        assert not np.allclose(first.embedding, second.embedding)
        assert np.allclose(first.embedding, third.embedding)
        assert second.text_cache_hits == 3
        with pytest.raises(OptionError) as caught:
            await engine.tagger.set_clip_weight(1.5)
        assert caught.value.code == "invalid_request"


@pytest.mark.anyio
@pytest.mark.parametrize("text_tower_tuned", [False, True])
async def test_a_request_names_its_lambda_beside_the_served_one(
    tmp_path: Path, video: Path, text_tower_tuned: bool
) -> None:
    """Built for it, named in its answer, equal to what it gives when served; others see nothing."""
    async with running(tmp_path, text_tower_tuned=text_tower_tuned) as engine:
        ask = engine.tagger.classify
        served = await ask(video, labels=LABELS)
        named = await ask(video, labels=LABELS, clip_weight=0.900001)
        again, mixed = await asyncio.gather(
            ask(video, labels=LABELS), ask(video, labels=LABELS, clip_weight=0.9)
        )
        assert (served.space.clip_weight, named.space.clip_weight) == (0.5, 0.9)
        assert again.tags == served.tags
        assert mixed.tags == named.tags
        assert engine.tagger.space == served.space
        assert engine.tagger.resident_clip_weights == (0.5, 0.9)
        texts = await engine.tagger.embed_texts(["a dog"], clip_weight=0.9)
        assert texts.space == named.space
        await engine.tagger.set_clip_weight(0.9)
        assert (await ask(video, labels=LABELS)).tags == named.tags


@pytest.mark.anyio
async def test_where_one_lambda_may_be_resident_no_other_can_be_named(
    tmp_path: Path, video: Path
) -> None:
    """The error names the served one; a text tower that no λ changes needs no weights at it."""
    async with running(tmp_path, resident=1) as engine:
        with pytest.raises(OptionError) as caught:
            await engine.tagger.classify(video, labels=LABELS, clip_weight=0.9)
        assert (caught.value.code, caught.value.limit) == ("lambda_not_resident", 0.5)
        texts = await engine.tagger.embed_texts(["a dog"], clip_weight=0.9)
        assert texts.space.clip_weight == 0.9


@pytest.mark.anyio
async def test_segments_cover_the_video_in_one_space(tmp_path: Path, video: Path) -> None:
    """Windows in order, unit vectors, also when they need several slots one after the other."""
    async with running(tmp_path, slot_bytes=2 * CLIP_BYTES) as engine:
        found = await engine.tagger.videos.embed_segments(video, cutting=WINDOWS)
        assert [s.start for s in found.segments] == pytest.approx([n / 4 for n in range(8)])
        assert found.segments[-1].end == pytest.approx(found.info.duration_seconds)
        assert all(abs(np.linalg.norm(s.vector) - 1) < 1e-5 for s in found.segments)
        part = await engine.tagger.videos.embed_segments(video, cutting=WINDOWS, start=1.0)
        assert np.allclose(part.segments[0].vector, found.segments[4].vector, atol=1e-5)


@pytest.mark.anyio
async def test_segments_may_be_shots(tmp_path: Path) -> None:
    """From cut to cut, in the part that is asked for; too many are refused as windows are."""
    film = write(tmp_path / "film.mp4", shots([30, 45, 25]))
    async with running(tmp_path / "store") as engine:
        videos = engine.tagger.videos
        found = await videos.embed_segments(film, cutting=Cutting("shots", None))
        spans = [(part.start, part.end) for part in found.segments]
        assert np.ravel(spans) == pytest.approx([0, 1.2, 1.2, 3.0, 3.0, 4.0])
        assert all(abs(np.linalg.norm(s.vector) - 1) < 1e-5 for s in found.segments)
        part = await videos.embed_segments(film, cutting=Cutting("shots", 1.0), start=2.0)
        spans = [(each.start, each.end) for each in part.segments]
        assert np.ravel(spans) == pytest.approx([2.0, 3.0, 3.0, 4.0])
    async with running(tmp_path / "store", max_segments=2) as engine:
        with pytest.raises(OptionError) as caught:
            await engine.tagger.videos.embed_segments(film, cutting=Cutting("shots", None))
        assert (caught.value.code, caught.value.limit) == ("too_many_segments", 2)


@pytest.mark.anyio
async def test_a_part_of_a_video_can_be_looked_at(tmp_path: Path, video: Path) -> None:
    """Only frames inside [start, end) are used; a range outside is an error."""
    async with running(tmp_path) as engine:
        answer = await engine.tagger.classify(video, labels=LABELS, start=0.5, end=1.0)
        assert all(0.4 < second < 1.0 for second in answer.frames_used)
        tail = await engine.tagger.classify(video, labels=LABELS, start=1.5)
        assert min(tail.frames_used) >= 1.4
        with pytest.raises(TimeRange):
            await engine.tagger.classify(video, labels=LABELS, start=100.0)


@pytest.mark.anyio
async def test_long_texts_are_cut_and_it_is_said(tmp_path: Path, video: Path) -> None:
    """Also when the vector comes from the cache."""
    async with running(tmp_path, context_length=8) as engine:
        for _ in range(2):
            answer = await engine.tagger.classify(video, labels=[LabelQuery(("x" * 50,))])
            codes = [warning.code for warning in answer.warnings]
            assert codes == ["label_truncated", "single_label"]
        texts = await engine.tagger.embed_texts(["x" * 50, "y"])
        assert [warning.code for warning in texts.warnings] == ["label_truncated"]


@pytest.mark.anyio
async def test_independent_scores_use_the_artefacts_background(tmp_path: Path, video: Path) -> None:
    """Enough labels of its own: no warning; a label's score does not depend on the others."""
    background = tuple(f"thing {number}" for number in range(40))
    async with running(tmp_path, background=background) as engine:
        await engine.tagger.warm()
        ask = engine.tagger.classify
        alone = await ask(video, labels=LABELS[:1], scores="independent")
        together = await ask(video, labels=LABELS, scores="independent")
        scores = {tag.label: tag.score for tag in together.tags}
        assert scores[alone.tags[0].label] == pytest.approx(alone.tags[0].score)
        assert together.none_score == pytest.approx(1 - max(scores.values()))
        assert alone.warnings == ()


@pytest.mark.anyio
async def test_requests_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, video: Path
) -> None:
    """No labels, another number of frames, more clips than a slot holds, too many segments."""
    async with running(tmp_path, slot_bytes=CLIP_BYTES, max_segments=3) as engine:
        tagger = engine.tagger
        with pytest.raises(LabelError):
            await tagger.classify(video, labels=[])
        for sampling in (
            Sampling(mode="uniform", frames=FRAMES + 1),
            Sampling(mode="strided", frames=FRAMES, views=50, stride_seconds=0.1),
        ):
            with pytest.raises(OptionError) as caught:
                await tagger.classify(video, labels=LABELS, sampling=sampling)
            assert caught.value.code == "invalid_sampling"
        with pytest.raises(VideoTooLong):
            await tagger.videos.embed_segments(video, cutting=Cutting("windows", 0.1))


@pytest.mark.anyio
async def test_views_of_a_request_are_averaged(tmp_path: Path, video: Path) -> None:
    """Several clips are decoded and encoded, one embedding comes out."""
    async with running(tmp_path) as engine:
        sampling = Sampling(mode="strided", frames=FRAMES, views=4, stride_seconds=0.1)
        answer = await engine.tagger.classify(video, labels=LABELS, sampling=sampling)
        assert answer.frames == 4 * FRAMES
        assert answer.embedding.shape == (8,)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.anyio
async def test_torchscript_gives_the_answers_of_onnx(tiny_artefact: Path, video: Path) -> None:
    """A real exported network: both runtimes agree on embeddings at λ = 0, 0.5, 1."""
    store = ArtefactStore(tiny_artefact)
    manifest = store.active()
    folder = store.folder(manifest.name, manifest.revision)
    slots = FrameSlots(1, slot_bytes=1 << 22)
    decoder = DecodePool(slots, workers=1, limits=Limits(), timeout_seconds=30)
    await decoder.start()
    size, frames = manifest.preprocessing.image_size, manifest.frames_per_clip
    views = manifest.sampling.views
    found: dict[str, list[Any]] = {}
    try:
        async with slots.lease((views, frames, size, size, 3)) as slot:
            await decoder.decode(
                video, sampling=manifest.sampling, preprocessing=manifest.preprocessing, slot=slot
            )
            for runtime in ("onnx", "torchscript"):
                encoder = EncoderProcess(
                    folder, manifest=manifest, slots=slots, runtime=runtime, threads=1
                )
                await encoder.start()
                for value in (0.0, 0.5, 1.0):
                    await encoder.set_clip_weight(value)
                    clips = await encoder.encode_clips(slot)
                    texts = await encoder.encode_texts(np.array([[1, 2, 3, 4]], np.int64))
                    found.setdefault(runtime, []).append((clips.vectors, texts.vectors))
                await encoder.stop()
    finally:
        await decoder.stop()
        slots.close()
    for (clips, texts), (other_clips, other_texts) in zip(*found.values(), strict=True):
        assert clips == pytest.approx(other_clips, abs=1e-4)
        assert texts == pytest.approx(other_texts, abs=1e-4)
