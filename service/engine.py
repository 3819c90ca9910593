"""What runs the active artefact, and how it is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.metrics import Metrics
from service.tagger import Tagger
from service.text_cache import TextCache


@dataclass(frozen=True)
class Engine:
    """The parts of one artefact, from decoding to tags."""

    encoder: EncoderProcess
    decoder: DecodePool
    slots: FrameSlots
    cache: TextCache
    tagger: Tagger
    has_redis: bool

    def states(self) -> Mapping[str, str]:
        """Whether each component works at this time: ``ok``, ``degraded`` or ``down``."""
        states = {
            "encoder": "ok" if self.encoder.ready else "down",
            "decoder": "ok" if self.decoder.ready else "down",
        }
        if self.has_redis:
            states["redis"] = "degraded" if self.cache.degraded else "ok"
        return states

    def watch(self, metrics: Metrics) -> None:
        """Show the engine's own counts in ``metrics``; they are read when they are asked for."""
        metrics.watch_gauge(
            "vtag_decode_workers", "Decode workers by state.", "state", self._workers
        )
        metrics.watch_gauge("vtag_frame_slots", "Frame slots by state.", "state", self._slots)
        metrics.watch_gauge(
            "vtag_frame_arena_bytes",
            "Memory that decoded frames take.",
            "kind",
            lambda: {"resident": self.slots.resident_bytes},
        )
        metrics.watch_counter(
            "vtag_worker_restarts",
            "Workers that died or were killed, and were replaced.",
            "worker",
            lambda: {"encoder": self.encoder.restarts, "decoder": self.decoder.replaced},
        )
        metrics.watch_counter(
            "vtag_text_cache_requests",
            "Text vectors by where they came from.",
            "result",
            self._texts,
        )
        if self.has_redis:
            metrics.watch_gauge(
                "vtag_redis_up",
                "1 if the last call of Redis succeeded.",
                "use",
                lambda: {"text_cache": float(not self.cache.degraded)},
            )

    def _workers(self) -> Mapping[str, float]:
        return {"busy": self.decoder.busy, "alive": self.decoder.alive}

    def _slots(self) -> Mapping[str, float]:
        return {"in_use": self.slots.in_use, "waited_for": self.slots.waiting}

    def _texts(self) -> Mapping[str, float]:
        return {
            "memory": self.cache.local_hits,
            "redis": self.cache.redis_hits,
            "miss": self.cache.computed,
            "redis_error": self.cache.redis_failures,
        }
