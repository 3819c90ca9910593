"""The application in this process, with a tagger and an index that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import FastAPI

from service.app import create_app
from service.encode.space import EmbeddingSpace
from service.index.video_index import IndexUnavailableError, SpaceContent, VideoIndex
from service.settings import Settings
from service.tagger import Tagger
from tests.service.small_artefact import publish


class ScriptedTagger:
    """Fails as it is told to."""

    def __init__(self, store: Path, error: Exception | None = None) -> None:
        self.manifest = publish(store)
        self.space = EmbeddingSpace(self.manifest.name, self.manifest.revision, 0.5)
        self.error = error
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def resident_clip_weights(self) -> tuple[float, ...]:
        """The served one alone."""
        return (self.space.clip_weight,)

    async def set_clip_weight(self, clip_weight: float) -> EmbeddingSpace:
        """Serve it."""
        self.space = replace(self.space, clip_weight=clip_weight)
        return self.space

    async def classify(self, *_: object, **__: object) -> Any:
        """Raise the error; without one, work until cancelled."""
        if self.error is not None:
            raise self.error
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


class ScriptedIndex:
    """Empty, or away."""

    def __init__(self, *, setup: Exception | None = None, away: bool = False) -> None:
        self.setup = setup
        self.away = away
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None:
        """Fail, or wait for the gate."""
        if self.setup is not None:
            raise self.setup
        await self.gate.wait()

    async def close(self) -> None:
        """Nothing to close."""

    async def ping(self) -> None:
        """Answer when the gate is open, unless away."""
        await self.gate.wait()
        if self.away:
            raise IndexUnavailableError

    async def spaces(self, *, collection: str | None = None) -> Sequence[SpaceContent]:  # noqa: ARG002
        """Nothing, unless away."""
        await self.ping()
        return []


@asynccontextmanager
async def running_app(
    folder: Path,
    *,
    error: Exception | None = None,
    index: ScriptedIndex | None = None,
    ready: bool = True,
    **settings: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI, ScriptedTagger]]:
    """Run the application with a tagger that does as it is told, and yield a client of it."""
    tagger = ScriptedTagger(folder / "store", error)
    chosen = Settings(data_dir=folder / "data", model_store=folder / "store", **settings)
    app = create_app(
        chosen, tagger=cast(Tagger, tagger), index=cast(VideoIndex, index or ScriptedIndex())
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://vtag") as client,
    ):
        if ready:
            await app.state.progress.finished.wait()
        yield client, app, tagger
