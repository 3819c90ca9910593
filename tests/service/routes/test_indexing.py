"""A video is written where its collection is searched, though that changes meanwhile."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.errors import ApiError
from service.index.postgres import PostgresIndex
from service.index.space import Space
from service.routes.indexing import index_video_bytes
from service.routes.parts import Parts
from service.schemas import IndexRequest
from tests.drawn_video import draw_video
from tests.service.engine import running

pytestmark = pytest.mark.anyio


class SwitchedIndex(PostgresIndex):
    """An index whose collection is switched just before a video is written."""

    to: Space | None = None

    async def add(self, video: Any, *, space: Space, segments: Any) -> Any:
        """Switch once, then write."""
        to, self.to = self.to, None
        if to is not None:
            await self.activate(to, collection="default")
        return await super().add(video, space=space, segments=segments)


@dataclass
class World:
    """What a request works with."""

    parts: Parts
    index: SwitchedIndex
    video: Any
    space: Space

    async def send(self, **options: Any) -> list[float]:
        """Index the video; the λ of the spaces that it has afterwards."""
        asked = IndexRequest.model_validate(options)
        stored, is_new, _ = await index_video_bytes(
            self.parts, asked, self.video, deadline=float("inf")
        )
        assert is_new
        return sorted(float(each.rpartition("/")[2]) for each in stored.spaces)

    def at(self, clip_weight: float) -> Space:
        """The space of the artefact at a λ."""
        return replace(self.space, clip_weight=clip_weight)


@pytest.fixture
async def world(postgres: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty collection, and one video to be written."""
    index = SwitchedIndex(postgres)
    await index.start()
    path = draw_video(tmp_path / "film.mp4")
    video = SimpleNamespace(path=path, sha256="0" * 64, size_bytes=path.stat().st_size)
    try:
        async with running(tmp_path / "store") as engine:
            tagger = engine.tagger
            settings = SimpleNamespace(segment_seconds=1.0)
            parts = SimpleNamespace(index=index, tagger=tagger, settings=settings, media=None)
            served, size = tagger.space, tagger.manifest.embedding_size
            space = Space(served.name, served.revision, served.clip_weight, size)
            yield World(cast(Parts, parts), index, video, space)
    finally:
        await index.close()


async def test_it_is_written_where_searches_look(world: World) -> None:
    """In the active space, not in the served one."""
    await world.index.activate(world.at(0.25), collection="default")
    assert await world.send() == [0.25]


async def test_a_lambda_that_is_named_is_the_only_one(world: World) -> None:
    """Whatever the collection is searched in."""
    await world.index.activate(world.at(0.25), collection="default")
    assert await world.send(**{"lambda": 0.75}) == [0.75]


async def test_a_switch_that_the_video_missed_is_made_up_for(world: World) -> None:
    """The look of the switch came before the video was there: it gets the new space, too."""
    world.index.to = world.at(0.25)
    assert await world.send() == [0.25, 0.5]


async def test_a_switch_to_an_artefact_that_is_not_here_is_told(world: World) -> None:
    """The video is to be sent again: another engine can write it where searches look."""
    world.index.to = replace(world.space, revision="ffffffffffff")
    with pytest.raises(ApiError) as caught:
        await world.send()
    assert (caught.value.code, caught.value.status) == ("encoder_unavailable", 503)
