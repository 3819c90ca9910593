"""A tagger with all its parts, really running, on a small artefact."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.label_encoder import LabelEncoder
from service.labels import LabelQuery
from service.store import ArtefactStore
from service.tagger import Tagger
from service.text_cache import TextCache
from service.videoclip.decoding import Limits
from service.videoclip.tokenizing import Tokenizer
from tests.service.small_artefact import publish

LABELS = [LabelQuery(("a red square",)), LabelQuery(("a green circle",)), LabelQuery(("rain",))]


@dataclass
class Engine:
    """Everything a tagger needs, for tests to reach into."""

    tagger: Tagger
    encoder: EncoderProcess
    decoder: DecodePool
    slots: FrameSlots
    cache: TextCache


@asynccontextmanager
async def running(
    root: Path,
    *,
    slot_bytes: int = 1 << 20,
    redis_url: str | None = None,
    max_segments: int = 2000,
    resident: int = 2,
    slot_count: int = 2,
    **artefact: Any,
) -> AsyncIterator[Engine]:
    """A tagger on a small artefact; afterwards nothing of it is left."""
    others = set(psutil.Process().children())  # the Postgres of other tests, for one
    if not (root / "active.json").exists():
        publish(root, **artefact)
    store = ArtefactStore(root)
    manifest = store.active()
    folder = store.folder(manifest.name, manifest.revision)
    slots = FrameSlots(slot_count, slot_bytes=slot_bytes)
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=1, resident=resident)
    decoder = DecodePool(slots, workers=2, limits=Limits(), timeout_seconds=30)
    cache = TextCache(redis_url=redis_url)
    tokenizer = Tokenizer(folder / "tokenizer.json", manifest.context_length)
    labels = LabelEncoder(encoder, cache=cache, tokenizer=tokenizer)
    await asyncio.gather(encoder.start(), decoder.start())
    tagger = Tagger(
        encoder=encoder, decoder=decoder, slots=slots, labels=labels, max_segments=max_segments
    )
    try:
        yield Engine(tagger, encoder, decoder, slots, cache)
        assert slots.in_use == 0
        assert slots.resident_bytes == 0
    finally:
        await asyncio.gather(encoder.stop(), decoder.stop(), cache.close())
        slots.close()
        assert set(psutil.Process().children()) <= others
