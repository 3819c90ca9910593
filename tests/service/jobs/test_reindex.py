"""Re-embedding on a real index, real kept files and a real encoder."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ApiError
from service.ids import new_id
from service.index.collection import CollectionMissingError
from service.index.postgres import PostgresIndex
from service.index.segment import NewSegment
from service.index.space import Space
from service.index.video_index import NewVideo
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.job import Json
from service.jobs.records import JobRecords
from service.jobs.reindex import Reindex
from service.jobs.reindex_plan import KIND, plan
from service.jobs.running import RunningJob
from service.media.folder import FolderStore
from service.media.library import MediaLibrary
from service.media.picture_cache import PictureCache
from service.segments import Cutting
from tests.drawn_video import draw_video
from tests.service.engine import Engine, running

pytestmark = pytest.mark.anyio


class LateIndex(PostgresIndex):
    """An index in which something happens between the last look and the switch."""

    late: Callable[[], Any] | None = None

    async def build_graphs(self) -> None:
        """Let it happen once."""
        late, self.late = self.late, None
        if late is not None:
            await late()
        await super().build_graphs()


@dataclass
class World:
    """The parts of a job, and a collection to work on."""

    engine: Engine
    index: LateIndex
    media: MediaLibrary
    records: JobRecords
    folder: Path

    def space(self, clip_weight: float) -> Space:
        """The space of the artefact at a λ."""
        manifest = self.engine.encoder.manifest
        return Space(manifest.name, manifest.revision, clip_weight, manifest.embedding_size)

    async def add(self, width: int, *, keep: bool = True, length: float = 0.75) -> str:
        """Index a drawn video at the served λ; its id."""
        path = self.folder / f"{width}.mp4"
        draw_video(path, seconds=2, width=width)
        found = await self.engine.tagger.videos.embed_segments(
            path, cutting=Cutting("windows", length)
        )
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        facts = NewVideo(sha256, size, None, None, 2.0, 15.0, width, 120, "h264")
        segments = [NewSegment(part.start, part.end, part.vector) for part in found.segments]

        async def write() -> str:
            space = self.space(found.space.clip_weight)
            return (await self.index.add(facts, space=space, segments=segments))[0].id

        if not keep:
            return await write()
        async with self.media.keeping(path, sha256=sha256, size_bytes=size):
            return await write()

    async def expected(self, width: int, clip_weight: float, *, length: float = 0.75) -> Any:
        """The vectors that `POST /videos` would write at a λ."""
        path = self.folder / f"{width}.mp4"
        found = await self.engine.tagger.videos.embed_segments(
            path, cutting=Cutting("windows", length), clip_weight=clip_weight
        )
        return np.stack([part.vector for part in found.segments])

    async def begin(self, request: Json) -> RunningJob:
        """A job that runs."""
        job_id = new_id("job")
        await self.records.add(job_id, kind=KIND, request=request, max_waiting=100)
        job = await self.records.begin(job_id)
        assert job is not None
        return RunningJob(job, records=self.records, folder=self.folder)

    async def run(self, job: RunningJob) -> Json:
        """One attempt of it."""

        @asynccontextmanager
        async def lend() -> AsyncIterator[EvaluationTools]:
            engine = self.engine
            labels: Any = None  # texts have no part in it
            yield EvaluationTools(
                engine.encoder, engine.decoder, engine.slots, labels, self.index, engine.tagger
            )

        return await Reindex(lend, media=self.media, grace_seconds=0).run(job)

    async def reindex(self, clip_weight: float, **options: bool) -> Json:
        """A whole job over the default collection."""
        request = plan(self.space(clip_weight), ("default",), **options).model_dump(mode="json")
        return await self.run(await self.begin(request))


@pytest.fixture
async def world(postgres: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty collection."""
    index = LateIndex(postgres)
    await index.start()
    media = MediaLibrary(
        FolderStore(tmp_path / "media", reserve_bytes=0, writer="me"),
        pictures=PictureCache(tmp_path / "pictures", max_bytes=1 << 20),
        database=index.database,
        holder="me",
        max_bytes=1 << 30,
        hold_seconds=60,
    )
    await media.start()
    try:
        # A slot holds two windows, so that three are decoded in two goes.
        async with running(tmp_path / "store", slot_bytes=2 * 3 * 16 * 16 * 3) as engine:
            records = JobRecords(index.database, owner="me")
            yield World(engine, index, media, records, tmp_path)
    finally:
        await media.stop()
        await index.close()


async def test_a_collection_is_searched_elsewhere_once_nothing_lacks(world: World) -> None:
    """In the windows it had, with the vectors that indexing gives; the old ones stay."""
    ids = [await world.add(width) for width in (160, 240)]
    old, new = world.space(0.5), world.space(0.25)
    await world.index.pin(old)
    request = plan(new, ("default",)).model_dump(mode="json")
    job = await world.begin(request)
    result = await world.run(job)
    assert job.progress["done"] == job.progress["total"] == 7  # six windows, and the switch
    [report] = result["collections"]
    assert (result["space"], report["switched"], report["previous"]) == (new.id, True, old.id)
    assert report["missing"]["count"] == 0
    assert await world.index.active_space("default") == new
    found = await world.index.embeddings(ids, space=new)
    for width, video_id in zip((160, 240), ids, strict=True):
        assert found[video_id] == pytest.approx(await world.expected(width, 0.25), abs=1e-4)
    assert await world.index.complete(old, collection="default")


async def test_videos_that_are_not_kept_hold_up_the_switch(world: World) -> None:
    """They are named with the reason, what was done stays; without them only if asked."""
    kept, lost = await world.add(160), await world.add(240, keep=False)
    old, new = world.space(0.5), world.space(0.25)
    await world.index.pin(old)
    with pytest.raises(ApiError) as caught:
        await world.reindex(0.25)
    assert (caught.value.code, caught.value.actual) == ("reindex_incomplete", 1)
    extra: dict[str, Any] = caught.value.extra
    [named] = extra["collections"]
    expected = {"count": 1, "codes": {"media_not_kept": 1}, "ids": [lost]}
    assert named["missing"] == expected
    assert await world.index.active_space("default") == old
    assert set(await world.index.embeddings([kept, lost], space=new)) == {kept}
    [report] = (await world.reindex(0.25, allow_incomplete=True))["collections"]
    assert (report["switched"], report["complete"]) == (True, False)
    assert report["missing"] == expected
    assert await world.index.active_space("default") == new


async def test_a_space_without_vectors_is_no_place_to_search(world: World) -> None:
    """If nothing could be embedded there is no switch, whatever was asked."""
    await world.add(160, keep=False)
    await world.index.pin(world.space(0.5))
    with pytest.raises(ApiError, match="reindex_incomplete"):
        await world.reindex(0.25, allow_incomplete=True)
    assert await world.index.active_space("default") == world.space(0.5)


async def test_a_video_that_cannot_be_decoded_any_more_costs_itself_only(world: World) -> None:
    """With the code that its decoding gives."""
    ids = [await world.add(width) for width in (160, 240)]
    stored = await world.index.get(ids[0])
    assert stored is not None
    path = world.folder / "media" / stored.sha256[:2] / stored.sha256
    path.unlink()
    path.write_bytes(b"no film any more")
    [report] = (await world.reindex(0.25, allow_incomplete=True))["collections"]
    assert report["missing"]["codes"] == {"unsupported_container": 1}
    assert report["missing"]["ids"] == ids[:1]


async def test_another_attempt_goes_on_after_the_last_finished_video(world: World) -> None:
    """What has its vectors is not touched again."""
    ids = [await world.add(width) for width in (160, 200, 240, 280)]
    new = world.space(0.25)
    job = await world.begin(plan(new, ("default",)).model_dump(mode="json"))
    attempt = asyncio.create_task(world.run(job))
    async with asyncio.timeout(60):
        while not (done := set(await world.index.embeddings(ids, space=new))):
            await asyncio.sleep(0)
    attempt.cancel()
    await asyncio.wait([attempt])
    assert attempt.cancelled()
    versions = {each: (await world.index.get(each)).version for each in done}  # type: ignore[union-attr]
    await world.run(job)
    assert await world.index.complete(new, collection="default")
    for video_id, version in versions.items():
        assert (await world.index.get(video_id)).version == version  # type: ignore[union-attr]


async def test_a_video_that_comes_before_the_switch_is_not_left_behind(world: World) -> None:
    """Indexed in the old space after the last look: the switch waits for it."""
    await world.add(160)
    new = world.space(0.25)
    added: list[str] = []

    async def late() -> None:
        added.append(await world.add(240))

    world.index.late = late
    [report] = (await world.reindex(0.25))["collections"]
    assert (report["switched"], report["complete"]) == (True, True)
    assert set(await world.index.embeddings(added, space=new)) == set(added) != set()


async def test_vectors_that_are_not_wanted_go_after_the_switch(world: World) -> None:
    """Those that were searched; one more λ beside them without a switch stays."""
    await world.add(160)
    old, beside, new = (world.space(weight) for weight in (0.5, 0.75, 0.25))
    await world.index.pin(old)
    [report] = (await world.reindex(0.75, activate=False))["collections"]
    assert (report["switched"], report["complete"]) == (False, True)
    assert await world.index.active_space("default") == old
    [report] = (await world.reindex(0.25, keep=False))["collections"]
    assert report["dropped"]
    assert {each.space for each in await world.index.spaces()} == {beside, new}


async def test_what_is_gone_is_said(world: World) -> None:
    """A collection that was removed, alone or among others; an artefact that is not served."""
    await world.add(160)
    new = world.space(0.25)
    job = await world.begin(plan(new, ("none",)).model_dump(mode="json"))
    with pytest.raises(CollectionMissingError):
        await world.run(job)
    job = await world.begin(plan(new, ("none", "default")).model_dump(mode="json"))
    gone, report = (await world.run(job))["collections"]
    assert (gone["gone"], report["switched"]) == (True, True)
    other = replace(new, revision="ffffffffffff")
    job = await world.begin(plan(other, ("default",)).model_dump(mode="json"))
    with pytest.raises(ApiError, match="model_changed"):
        await world.run(job)
