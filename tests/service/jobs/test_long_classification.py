"""Attempts of a long classification: what is done stays done, and nothing is mixed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.errors import ApiError
from service.fetch import Fetcher
from service.ids import new_id
from service.index.database import Database
from service.jobs import long_classification
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.job import Json
from service.jobs.long_classification import FILE, KIND, LongClassification
from service.jobs.records import JobRecords
from service.jobs.running import RunningJob
from service.routes.classifying import timeline
from service.timeline_tagger import TimelineTagger
from tests.drawn_video import draw_video
from tests.service.engine import Engine, running

pytestmark = pytest.mark.anyio

LABELS = ["a red square", "a green circle", "rain"]


@dataclass
class World:
    """A real tagger, and jobs in a real Postgres."""

    engine: Engine
    records: JobRecords
    folder: Path
    tagged: list[int] = field(default_factory=list)

    async def begin(self, **options: Any) -> RunningJob:
        """A job for a drawn video that runs."""
        job_id = new_id("job")
        request = {"labels": LABELS, "source": "upload", "segments": {"length": 0.25}, **options}
        await self.records.add(job_id, kind=KIND, request=request, max_waiting=9)
        return await self.again(job_id)

    async def again(self, job_id: str) -> RunningJob:
        """The next attempt of it."""
        job = await self.records.begin(job_id)
        assert job is not None
        return RunningJob(job, records=self.records, folder=self.folder)

    async def run(self, job: RunningJob) -> Json:
        """One attempt."""

        @asynccontextmanager
        async def lend() -> AsyncIterator[EvaluationTools]:
            engine = self.engine
            none: Any = None  # texts come by the tagger, and no index has a part in it
            yield EvaluationTools(
                engine.encoder, engine.decoder, engine.slots, none, none, engine.tagger
            )

        handler = LongClassification(
            lend,
            media=None,
            fetcher=Fetcher(hosts=(), plain_http=False, seconds=1),
            shape=timeline,
            segment_seconds=4.0,
            max_bytes=1 << 20,
            max_tags=100,
        )
        return await handler.run(job)


@pytest.fixture
async def world(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A film of two seconds, in the folder of whichever job."""
    database = Database(postgres)
    await database.start()
    draw_video(tmp_path / f"{FILE}.mp4", seconds=2).rename(tmp_path / FILE)
    try:
        async with running(tmp_path / "store", slot_bytes=2 * 3 * 16 * 16 * 3) as engine:
            found = World(engine, JobRecords(database, owner="me"), tmp_path)
            tag = TimelineTagger.tag

            async def counted(self: TimelineTagger, *args: Any, **options: Any) -> Any:
                async for segment in tag(self, *args, **options):
                    found.tagged.append(round(segment.start * 4))
                    yield segment

            monkeypatch.setattr(TimelineTagger, "tag", counted)
            yield found
    finally:
        await database.close()


async def test_another_attempt_goes_on_with_the_next_segment(world: World) -> None:
    """None is tagged twice, and the result is that of one attempt."""
    whole = await world.run(await world.begin())
    assert world.tagged == list(range(8))
    world.tagged.clear()
    job = await world.begin()
    attempt = asyncio.create_task(world.run(job))
    async with asyncio.timeout(60):
        while job.progress.get("done", 0) < 3:
            await asyncio.sleep(0)
    attempt.cancel()
    await asyncio.wait([attempt])
    kept = len([name for name in await job.pieces() if name.isdecimal()])
    assert 3 <= kept < 8
    done = world.tagged[:kept]
    world.tagged.clear()
    again = await world.run(await world.again(job.id))
    assert done + world.tagged == list(range(8))
    assert again["segments"] == whole["segments"]
    assert (
        again["video"]["sha256"] == hashlib.sha256((world.folder / FILE).read_bytes()).hexdigest()
    )


@pytest.mark.slow
async def test_a_long_run_lets_go_of_the_weights_between_slices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slices of one segment each, the answer is the same."""
    whole = await world.run(await world.begin(segments={"mode": "shots", "length": 0.5}))
    monkeypatch.setattr(long_classification, "_SLICE_SECONDS", 0.0)
    sliced = await world.run(await world.begin(segments={"mode": "shots", "length": 0.5}))
    assert sliced["segments"] == whole["segments"] != []


@pytest.mark.slow
async def test_what_changed_meanwhile_is_not_mixed(world: World) -> None:
    """Another video in its place, another model, or none: the job says so."""
    job = await world.begin()
    await job.save("whole", {"model": "other@1", "clip_weight": 0.5, "sha256": "0" * 64})
    with pytest.raises(ApiError, match="model_changed"):
        await world.run(job)
    manifest = world.engine.encoder.manifest
    served = f"{manifest.name}@{manifest.revision}"
    await job.save("whole", {"model": served, "clip_weight": 0.5, "sha256": "0" * 64})
    with pytest.raises(ApiError, match="fetch_failed"):
        await world.run(job)
    (world.folder / FILE).unlink()
    with pytest.raises(ApiError, match="job_interrupted"):
        await world.run(job)


@pytest.mark.slow
async def test_more_tags_than_an_answer_holds_are_refused(world: World) -> None:
    """As ``/classify`` refuses them."""
    with pytest.raises(ApiError) as caught:
        await world.run(await world.begin(segments={"length": 0.1, "overlap": 0.08}))
    assert (caught.value.code, caught.value.limit) == ("too_many_segments", 100)
