"""The application: the only place where parts are chosen and joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from service.admission import Admission
from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.encode.supervision import EncoderError
from service.engine import Engine
from service.envelope import Envelope
from service.frames import FrameSlots
from service.index.embedded import EmbeddedPostgres
from service.index.postgres import PostgresIndex
from service.index.video_index import IndexSetupError, VideoIndex
from service.kept_clip_weight import KeptClipWeight
from service.labels import LabelEncoder, LabelLimits
from service.metrics import Metrics
from service.routes import (
    classify,
    documents,
    embeddings,
    health,
    lambda_,
    models,
    problems,
    search,
    videos,
)
from service.routes.parts import Parts, Progress
from service.settings import Settings
from service.spool import Spool
from service.state_folder import StateFolder, StateFolderError
from service.store import ArtefactStore
from service.tagger import Tagger
from service.text_cache import TextCache
from service.videoclip.decoding import Limits
from service.videoclip.manifest import ArtefactError
from service.videoclip.tokenizing import Tokenizer

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
        service.begin()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="vtag",
        version=version("vtag"),
        description="Open-vocabulary video tagging and search.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        responses=documents.PROBLEM,
    )
    app.state.progress = service.progress
    app.state.metrics = metrics
    app.state.service = service
    for module in (classify, videos, search, embeddings, lambda_, models, health, problems):
        app.include_router(module.router)
    problems.install(app)
    documents.install(app)
    app.add_middleware(Envelope, metrics=metrics)
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
        self._admission = Admission(
            {
                "video": settings.max_in_flight,
                "text": settings.max_text_in_flight,
                "upload": settings.max_uploads,
            },
            workers={"video": settings.decode_workers, "text": 1, "upload": settings.max_uploads},
            metrics=metrics,
        )

    def begin(self) -> None:
        """Start everything in the background; ``progress`` tells how far it is."""
        self._starting = asyncio.create_task(self._start(), name="start")

    def drain(self) -> None:
        """Take no new work; readiness goes first, so that load balancers look elsewhere."""
        self._admission.drain()

    async def stop(self) -> None:
        """Stop everything; allowed at any time, any number of times."""
        self._admission.drain()
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
        store = ArtefactStore(settings.model_store)
        index = self._index or self._postgres(folder)
        self._stack.push_async_callback(index.close)
        starts: dict[str, Callable[[], Awaitable[None]]] = {"index": index.start}
        kept = KeptClipWeight(folder.path / "lambda.json")
        engine = None
        if self._tagger is None:
            engine = await self._engine(store, kept)
            starts |= {"encoder": engine.encoder.start, "decoder": engine.decoder.start}
        await self._all(starts)
        tagger = engine.tagger if engine is not None else self._tagger
        if tagger is None:
            raise AssertionError("there is a tagger: given, or of the engine")
        if engine is not None:
            await engine.tagger.warm()
            engine.watch(self._metrics)
        space = tagger.space
        self._metrics.model.info({"name": space.name, "revision": space.revision})
        self._metrics.clip_weight.set(space.clip_weight)
        return Parts(
            settings=settings,
            metrics=self._metrics,
            admission=self._admission,
            spool=spool,
            store=store,
            index=index,
            tagger=tagger,
            kept=kept,
            states=engine.states if engine is not None else dict,
        )

    async def _all(self, starts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        """Start parts side by side; the first failure is raised once all have settled."""

        async def one(name: str, start: Callable[[], Awaitable[None]]) -> None:
            self.progress.components[name] = "starting"
            await start()
            self.progress.components[name] = "ok"

        results = await asyncio.gather(
            *(one(name, start) for name, start in starts.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _postgres(self, folder: StateFolder) -> PostgresIndex:
        settings = self._settings
        dsn: str | EmbeddedPostgres = EmbeddedPostgres(folder.path / "postgres")
        if settings.database_url is not None:
            dsn = settings.database_url.get_secret_value()
        return PostgresIndex(dsn, exact_segments=settings.exact_search_segments)

    async def _engine(self, store: ArtefactStore, kept: KeptClipWeight) -> Engine:
        """Choose what serves the active artefact; nothing of it runs yet."""
        settings = self._settings
        manifest = await asyncio.to_thread(store.active)
        folder = store.folder(manifest.name, manifest.revision)
        picture_bytes = 3 * manifest.preprocessing.image_size**2
        frames = max(settings.max_frames, manifest.frames_per_clip * manifest.sampling.views)
        slots = FrameSlots(settings.frame_slots, slot_bytes=frames * picture_bytes)
        self._stack.callback(slots.close)
        encoder = EncoderProcess(
            folder,
            manifest=manifest,
            slots=slots,
            runtime=settings.runtime,
            device=settings.device,
            threads=settings.encoder_threads or None,
            clip_weight=kept.read(name=manifest.name, revision=manifest.revision),
        )
        self._stack.push_async_callback(encoder.stop)
        decoder = DecodePool(
            slots,
            workers=settings.decode_workers,
            limits=Limits(
                max_pixels=settings.max_pixels, max_duration_seconds=settings.max_duration_seconds
            ),
            timeout_seconds=settings.decode_timeout_seconds,
        )
        self._stack.push_async_callback(decoder.stop)
        redis = settings.redis_url
        cache = TextCache(
            capacity=settings.text_cache_entries,
            redis_url=None if redis is None else redis.get_secret_value(),
        )
        self._stack.push_async_callback(cache.close)
        path = folder / manifest.tokenizer
        try:
            tokenizer = await asyncio.to_thread(Tokenizer, path, manifest.context_length)
        except ValueError:
            raise ArtefactError(path.name, expected="a tokenizer", found="something else") from None
        tagger = Tagger(
            encoder=encoder,
            decoder=decoder,
            slots=slots,
            labels=LabelEncoder(encoder, cache=cache, tokenizer=tokenizer),
            limits=LabelLimits(
                max_labels=settings.max_labels,
                max_characters=settings.max_label_characters,
                max_templates=settings.max_templates,
            ),
            max_segments=settings.max_segments,
        )
        return Engine(
            encoder=encoder,
            decoder=decoder,
            slots=slots,
            cache=cache,
            tagger=tagger,
            has_redis=redis is not None,
        )
