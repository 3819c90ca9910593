"""Files to pixels: one actor of Ray around one decode child in its sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from anyio.from_thread import start_blocking_portal

from service.bulk.plan import Plan
from service.decode.answers import DecodedInfo
from service.decode.pool import DecodePool
from service.frames import FrameSlots, Slot, map_slot
from service.segments import Span, cut, groups
from service.videoclip.decoding import VideoInfo
from service.videoclip.errors import VideoError, VideoTooLong
from service.videoclip.manifest import load_manifest

Row = dict[str, Any]

PART_BYTES: Final = 16 * 1024 * 1024
"""Of pixels in one row: what a long video may take of the object store at a time, one clip at
least."""


class Decoder:
    """Yields for each file its parts, each with the pixels of some segments; or why there are none.

    A row has: ``name``, ``size``, ``version`` as listed; ``sha256``; ``info``, the facts of the
    video as JSON; ``part`` of ``parts``; ``spans``, start and end of its segments in seconds as
    JSON; ``pixels``, uint8 (segments, T, S, S, 3) as bytes; ``seconds`` that this took; ``code``
    and ``detail`` of what is wrong, empty if nothing is.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        manifest = load_manifest(plan.folder)
        self._preprocessing = manifest.preprocessing
        self._sampling = manifest.sampling.model_copy(update={"views": 1})
        size = self._preprocessing.image_size
        self._clip_shape = (self._sampling.frames, size, size, 3)
        clip_bytes = int(np.prod(self._clip_shape))
        self._clips = max(1, PART_BYTES // clip_bytes)
        self._undo = ExitStack()
        # A thread of its own: a child ends with the thread that started it, and Ray's come and go.
        self._portal = self._undo.enter_context(start_blocking_portal())
        self._slots = FrameSlots(1, slot_bytes=self._clips * clip_bytes)
        self._pool = self._portal.call(self._start)

    async def _start(self) -> DecodePool:
        pool = DecodePool(
            self._slots,
            workers=1,
            limits=self._plan.limits,
            timeout_seconds=self._plan.decode_timeout_seconds,
            sandbox=self._plan.sandbox,
        )
        await pool.start()
        return pool

    def close(self) -> None:
        """End the child."""
        self._portal.call(self._pool.stop)
        self._slots.close()
        self._undo.close()

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, list[Any]]]:
        """Yield the parts of each file of `batch` (columns ``name``, ``size``, ``version``)."""
        for name, size, version in zip(batch["name"], batch["size"], batch["version"], strict=True):
            listed = {"name": str(name), "size": int(size), "version": str(version)}
            for row in self._rows(listed):
                yield {column: [value] for column, value in row.items()}

    def _rows(self, listed: Row) -> Iterator[Row]:
        sha256 = ""
        try:
            with self._plan.source.local(listed["name"]) as path:
                began = time.perf_counter()
                sha256 = _digest(path)
                info, spans = self._portal.call(self._cut, path)
                parts = list(groups(spans, size=self._clips))
                for number, part in enumerate(parts):
                    pixels = self._portal.call(self._decode, path, part)
                    yield {
                        **listed,
                        "sha256": sha256,
                        "info": json.dumps(asdict(info)),
                        "part": number,
                        "parts": len(parts),
                        "spans": json.dumps(part),
                        "pixels": pixels,
                        "seconds": time.perf_counter() - began,
                        "code": "",
                        "detail": "",
                    }
                    began = time.perf_counter()
        except VideoError as error:
            yield _failed(listed, sha256, error.code, error.detail)
        except OSError as error:
            yield _failed(listed, sha256, "source_unavailable", error.strerror or str(error))

    async def _cut(self, path: Path) -> tuple[VideoInfo, list[Span]]:
        info = await self._pool.probe(path)
        spans = cut(info.duration_seconds, self._plan.segment_seconds)
        most = self._plan.max_segments
        if len(spans) > most:
            raise VideoTooLong(
                f"The video has {len(spans)} segments, at most {most} fit.",
                limit=most,
                actual=len(spans),
            )
        return info, spans

    async def _decode(self, path: Path, spans: Sequence[Span]) -> bytes:
        shape = (len(spans), *self._clip_shape)
        async with self._slots.lease(shape) as slot:
            await self._fill(path, spans, slot)
            return await asyncio.to_thread(
                lambda: map_slot(self._slots.descriptor, slot=slot).tobytes()
            )

    async def _fill(self, path: Path, spans: Sequence[Span], slot: Slot) -> DecodedInfo:
        return await self._pool.decode(
            path,
            sampling=self._sampling,
            preprocessing=self._preprocessing,
            slot=slot,
            spans=spans,
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _failed(listed: Row, sha256: str, code: str, detail: str) -> Row:
    return {
        **listed,
        "sha256": sha256,
        "info": "",
        "part": 0,
        "parts": 0,
        "spans": "[]",
        "pixels": b"",
        "seconds": 0.0,
        "code": code,
        "detail": detail,
    }
