"""What runs one artefact: how it is made, and how it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.child import resident_bytes
from service.decode.instruments import watch_decoders
from service.decode.pool import DecodePool
from service.encode.instruments import BatchInstruments, watch_encoder
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.index.video_index import VideoIndex
from service.jobs.evaluation_tools import EvaluationTools
from service.kept_clip_weight import KeptClipWeight
from service.label_encoder import LabelEncoder
from service.labels import LabelLimits
from service.metrics import Metrics
from service.settings import Settings
from service.store import ArtefactStore
from service.tagger import Tagger
from service.text_cache import TextCache
from service.videoclip.decoding import Limits
from service.videoclip.manifest import ArtefactError, Manifest
from service.videoclip.tokenizing import Tokenizer


@dataclass(frozen=True)
class Engine:
    """The parts of one artefact, from decoding to tags."""

    encoder: EncoderProcess
    decoder: DecodePool
    slots: FrameSlots
    cache: TextCache
    labels: LabelEncoder
    tagger: Tagger
    has_redis: bool

    def evaluation_tools(self, index: VideoIndex) -> EvaluationTools:
        """What evaluations of λ work with."""
        return EvaluationTools(
            self.encoder, self.decoder, self.slots, self.labels, index, self.tagger
        )

    def states(self) -> Mapping[str, str]:
        """How each component is doing now: ``ok``, ``degraded``, ``stuck`` or ``down``."""
        states = {
            "encoder": self.encoder.state,
            "decoder": self.decoder.state,
        }
        if self.has_redis:
            states["redis"] = "degraded" if self.cache.degraded else "ok"
        return states

    def devices(self) -> Mapping[str, str]:
        """How each device that networks run on is doing, by its place in VTAG_DEVICE."""
        return {str(place): one.state for place, one in enumerate(self.encoder.stations)}

    def backlog_seconds(self, lane: str) -> float:
        """Time that accepted work takes which is ahead of a new request of this lane.

        0 for lanes of bytes that come or go (uploads, downloads): no worker has a part in them.
        """
        if lane not in ("video", "text"):
            return 0.0
        encoding = self.encoder.backlog_seconds
        return self.decoder.backlog_seconds + encoding if lane == "video" else encoding

    async def start(self) -> None:
        """Start it and make it warm; when this returns it can serve.

        Raises:
            ArtefactError: the artefact is broken or does not compute; one line.
            EncoderError, OSError: there is no process or no memory for it.
        """
        starts = (self.encoder.start(), self.decoder.start())
        # Both settle before one is told of: who stops an engine must not race with its start.
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        await self.tagger.warm()

    async def stop(self) -> None:
        """End its processes and give its memory back; safe to call twice, and while it starts."""
        await asyncio.gather(self.encoder.stop(), self.decoder.stop())
        self.slots.close()


class EngineMaker:
    """Chooses and joins the parts that run one artefact.

    Args:
        settings: of the service.
        store: where artefacts are.
        kept: the λ that was chosen for each.
        cache: of texts; engines share it, its keys name the revision.
        metrics: where batches are counted.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: ArtefactStore,
        kept: KeptClipWeight,
        cache: TextCache,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics
        if metrics is not None:
            running = settings.runtime, settings.precision, settings.device
            metrics.encoder.info(
                dict(zip(("runtime", "precision", "device"), running, strict=True))
            )
        self._settings = settings
        self._store = store
        self._kept = kept
        self._cache = cache

    async def make(self, manifest: Manifest) -> Engine:
        """Return the engine of an artefact; nothing of it runs yet.

        Raises:
            ArtefactError: it has no tokenizer.
        """
        settings = self._settings
        folder = self._store.folder(manifest.name, manifest.revision)
        path = folder / manifest.tokenizer
        try:
            tokenizer = await asyncio.to_thread(Tokenizer, path, manifest.context_length)
        except (OSError, ValueError):
            raise ArtefactError(path.name, expected="a tokenizer", found="something else") from None
        picture_bytes = 3 * manifest.preprocessing.image_size**2
        frames = max(settings.max_frames, manifest.frames_per_clip * manifest.sampling.views)
        slots = FrameSlots(settings.frame_slots, slot_bytes=frames * picture_bytes)
        encoder = EncoderProcess(
            folder,
            manifest=manifest,
            slots=slots,
            runtime=settings.runtime,
            devices=settings.device.split(","),
            threads=settings.encoder_threads or None,
            precision="float32" if settings.precision == "auto" else settings.precision,
            clip_weight=self._kept.read(name=manifest.name, revision=manifest.revision),
            resident=settings.resident_lambdas,
            call_timeout_seconds=settings.encoder_timeout_seconds,
        )
        if self._metrics is not None:
            encoder.observe(BatchInstruments(self._metrics))
        decoder = DecodePool(
            slots,
            workers=settings.decode_workers,
            limits=Limits(
                max_pixels=settings.max_pixels, max_duration_seconds=settings.max_duration_seconds
            ),
            timeout_seconds=settings.decode_timeout_seconds,
            sandbox=settings.decode_sandbox,
        )
        labels = LabelEncoder(encoder, cache=self._cache, tokenizer=tokenizer)
        tagger = Tagger(
            encoder=encoder,
            decoder=decoder,
            slots=slots,
            labels=labels,
            limits=label_limits(settings),
            max_segments=settings.max_segments,
        )
        return Engine(
            encoder=encoder,
            decoder=decoder,
            slots=slots,
            cache=self._cache,
            labels=labels,
            tagger=tagger,
            has_redis=settings.redis_url is not None,
        )


def label_limits(settings: Settings) -> LabelLimits:
    """Return the bounds of labels and templates."""
    return LabelLimits(
        max_labels=settings.max_labels,
        max_characters=settings.max_label_characters,
        max_templates=settings.max_templates,
        max_sentences=settings.max_sentences,
    )


def watch(metrics: Metrics, now: Callable[[], Engine]) -> None:
    """Show the counts of the engine that serves in ``metrics``; read when they are asked for.

    After another artefact was activated they are those of its engine: counters begin again, as
    they do after a restart.
    """
    watch_decoders(metrics, lambda: now().decoder)
    watch_encoder(metrics, lambda: now().encoder)
    metrics.watch(
        "vtag_frame_slots",
        lambda: {"in_use": now().slots.in_use, "waited_for": now().slots.waiting},
    )
    metrics.watch(
        "vtag_frame_arena_bytes",
        lambda: {
            "resident": now().slots.resident_bytes,
            "windows": now().decoder.window_bytes,
        },
    )
    metrics.watch(
        "vtag_worker_restarts",
        lambda: {"encoder": now().encoder.restarts, "decoder": now().decoder.replaced},
    )
    metrics.watch(
        "vtag_worker_memory_bytes",
        lambda: {
            "encoder": resident_bytes(one.worker.pid for one in now().encoder.stations),
            "decoder": resident_bytes(now().decoder.pids),
        },
    )
    metrics.watch("vtag_text_cache_requests", lambda: _texts(now().cache))
    metrics.watch("vtag_text_cache_entries", lambda: {"": now().cache.entries})
    if now().has_redis:
        metrics.watch("vtag_redis_up", lambda: {"text_cache": float(not now().cache.degraded)})


def _texts(cache: TextCache) -> Mapping[str, float]:
    return {
        "memory": cache.local_hits,
        "redis": cache.redis_hits,
        "miss": cache.computed,
        "redis_error": cache.redis_failures,
        "redis_corrupt": cache.corrupt,
    }
