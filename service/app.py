"""The application: the only place where parts are chosen and joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service import engine, tracing
from service.activation import Activation
from service.encode.supervision import EncoderError
from service.engine import Engine, EngineMaker
from service.index.choice import choose_index
from service.index.postgres import PostgresIndex
from service.index.video_index import IndexSetupError, VideoIndex
from service.job_setup import open_jobs
from service.jobs.webhook_choice import open_webhooks
from service.kept_clip_weight import KeptClipWeight
from service.media.choice import open_library
from service.metrics import Metrics
from service.routes import documents, doorway, paths, problems
from service.routes.parts import Parts, Progress
from service.serving import Served, Serving, show
from service.settings import Settings
from service.spool import Spool
from service.state_folder import StateFolder, StateFolderError
from service.store import ArtefactStore
from service.store_watch import StoreWatch
from service.tagger import Tagger
from service.text_cache import TextCache
from service.videoclip.manifest import ArtefactError

logger = logging.getLogger("vtag")

# Failures that one line for the operator explains; whoever runs the application shows it.
_OPERATOR_ERRORS = (StateFolderError, IndexSetupError, EncoderError, OSError)


def create_app(
    settings: Settings, *, tagger: Tagger | None = None, index: VideoIndex | None = None
) -> FastAPI:
    """Return the application; its lifespan starts and stops everything.

    Requests are answered at once; until everything is ready, most with 503 ``not_ready``.

    Args:
        settings: see `Settings`.
        tagger: instead of the one that serves the active artefact; it is neither started nor
            stopped here.
        index: instead of Postgres; started and stopped here.
    """
    metrics = Metrics()
    service = Service(settings, metrics=metrics, tagger=tagger, index=index)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tracing.exporting(settings.otlp_endpoint):
            service.begin()
            door.open()
            try:
                yield
            finally:
                await service.stop()
                await door.close()

    app = FastAPI(
        title="vtag",
        version=version("vtag"),
        description="Open-vocabulary video tagging and search.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        responses=documents.PROBLEM,
    )
    app.state.progress, app.state.metrics = service.progress, metrics
    app.state.service = service
    paths.install(app)
    problems.install(app)
    documents.install(app)
    door = app.state.door = doorway.install(
        app, settings, metrics=metrics, progress=service.progress, admission=service.admission
    )
    return app


class Service:
    """The parts while they live: started in order, stopped in reverse, whatever happens."""

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics,
        tagger: Tagger | None,
        index: VideoIndex | None,
    ) -> None:
        self.progress = Progress()
        self._settings = settings
        self._metrics = metrics
        self._tagger = tagger
        self._index = index
        self._stack = AsyncExitStack()
        self._starting: asyncio.Task[None] | None = None
        self.admission = doorway.admission(settings, metrics)

    def begin(self) -> None:
        """Start everything in the background; ``progress`` tells how far it is."""
        self._starting = asyncio.create_task(self._start(), name="start")

    def drain(self) -> None:
        """Become unready, so that load balancers look elsewhere; requests are still taken."""
        self.admission.drain()

    def close(self) -> None:
        """Take no new work; what is in flight goes on."""
        self.admission.close()

    async def stop(self) -> None:
        """Stop everything; allowed at any time, any number of times."""
        self.close()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self.progress.parts = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _start(self) -> None:
        try:
            self.progress.parts = await self._join()
        except ArtefactError as error:
            self.progress.failure = f"VTAG_MODEL_STORE: {self._settings.model_store}: {error}"
        except _OPERATOR_ERRORS as error:
            self.progress.failure = str(error)
        except Exception as error:
            self.progress.failure = f"unexpected {type(error).__name__}; the log has the details"
            logger.exception("the service cannot start")
            raise
        finally:
            self.progress.finished.set()

    async def _join(self) -> Parts:
        settings = self._settings
        folder = StateFolder(settings.data_dir)
        folder.acquire()
        self._stack.callback(folder.release)
        spool = Spool(
            folder.spool,
            max_bytes=settings.max_upload_bytes,
            reserve_bytes=settings.spool_reserve_bytes,
        )
        spool.open()
        self._metrics.watch("vtag_spool_bytes", spool.disk)
        store = ArtefactStore(settings.model_store)
        index = self._index or choose_index(settings, data_dir=folder.path)
        self._stack.push_async_callback(index.close)
        starts: dict[str, Callable[[], Awaitable[None]]] = {"index": index.start}
        kept = KeptClipWeight(folder.path / "lambda.json")
        if self._tagger is not None:
            await self.progress.start(starts)
            return self._parts(Serving(Served(self._tagger)), spool, store, index, kept)
        maker = EngineMaker(
            settings, store=store, kept=kept, cache=self._text_cache(), metrics=self._metrics
        )
        known = await asyncio.to_thread(store.signature)
        first = await maker.make(await asyncio.to_thread(store.active))
        serving = Serving(self._served(first, index))
        self._stack.push_async_callback(serving.stop)
        await self.progress.start(
            starts | {"encoder": first.encoder.start, "decoder": first.decoder.start}
        )
        await first.tagger.warm()
        engine.watch(self._metrics, lambda: serving.engine)
        self.admission.watch(lambda lane: serving.engine.backlog_seconds(lane))
        self._metrics.watch("vtag_engines", lambda: {"resident": serving.resident})
        parts = self._parts(serving, spool, store, index, kept)
        parts.activation = Activation(
            store,
            maker=maker,
            wrap=lambda made: self._served(made, index),
            serving=serving,
            metrics=self._metrics,
            swapping=parts.choosing,
            patience_seconds=settings.request_timeout_seconds,
            limit_seconds=settings.request_timeout_seconds + settings.upload_timeout_seconds,
        )
        self._stack.push_async_callback(parts.activation.stop)
        if settings.store_watch_seconds > 0:
            watch = StoreWatch(
                store,
                activation=parts.activation,
                known=known,
                seconds=settings.store_watch_seconds,
            )
            self._stack.push_async_callback(watch.stop)
            watch.start()
        if isinstance(index, PostgresIndex):
            parts.media = await self._stack.enter_async_context(
                open_library(settings, folder=folder, database=index.database)
            )
            parts.jobs = await self._stack.enter_async_context(
                open_jobs(parts, serving=serving, index=index, folder=folder.path / "jobs")
            )
            parts.webhooks = await self._stack.enter_async_context(
                open_webhooks(settings, database=index.database, metrics=self._metrics)
            )
        return parts

    def _served(self, made: Engine, index: VideoIndex) -> Served:
        """What serves, of an engine; evaluations need the index that jobs are kept in."""
        tools = made.evaluation_tools(index) if isinstance(index, PostgresIndex) else None
        return Served(made.tagger, made, evaluation=tools)

    def _parts(
        self,
        serving: Serving,
        spool: Spool,
        store: ArtefactStore,
        index: VideoIndex,
        kept: KeptClipWeight,
    ) -> Parts:
        show(serving.present, self._metrics)
        fetcher = doorway.fetcher(self._settings)
        self._stack.push_async_callback(fetcher.close)  # before jobs: they fetch until they end
        return Parts(
            settings=self._settings,
            metrics=self._metrics,
            admission=self.admission,
            spool=spool,
            store=store,
            index=index,
            serving=serving,
            kept=kept,
            answers=doorway.kept_answers(self._settings, index),
            fetcher=fetcher,
        )

    def _text_cache(self) -> TextCache:
        redis = self._settings.redis_url
        cache = TextCache(
            capacity=self._settings.text_cache_entries,
            redis_url=None if redis is None else redis.get_secret_value(),
        )
        cache.observe = lambda op, took: self._metrics.redis_seconds.labels(op).observe(took)
        self._stack.push_async_callback(cache.close)
        return cache
