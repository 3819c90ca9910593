"""An engine as admission and readiness see it; nothing of it runs here."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from service.encode.work import NO_DEADLINE, QueueKey, Work
from service.engine import EngineMaker
from service.kept_clip_weight import KeptClipWeight
from service.settings import Settings
from service.store import ArtefactStore
from service.text_cache import TextCache
from tests.service.small_artefact import publish

pytestmark = pytest.mark.anyio


async def test_a_lane_waits_for_the_workers_that_it_uses(tmp_path: Path) -> None:
    """Bytes that come or go wait for no encoder, however much it has to do; labels and videos do.

    As no device of the list works yet, the backlog is that of one.
    """
    manifest = publish(tmp_path / "store")
    cache = TextCache()
    maker = EngineMaker(
        Settings(model_store=tmp_path / "store", device="cpu,cpu"),
        store=ArtefactStore(tmp_path / "store"),
        kept=KeptClipWeight(tmp_path / "lambda.json"),
        cache=cache,
    )
    engine = await maker.make(manifest)
    batcher = engine.encoder.batcher
    batcher.costs["texts"].add(4, 1.0)
    future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
    ids = np.zeros((3, 4), np.int64)
    batcher.add(Work(QueueKey("texts", None), 3, ids, NO_DEADLINE, time.monotonic(), future))
    waits = {lane: engine.backlog_seconds(lane) for lane in ("video", "text", "upload", "download")}
    assert waits == {"video": 3.0, "text": 3.0, "upload": 0.0, "download": 0.0}
    assert engine.states()["encoder"] == "down"
    assert engine.devices() == {"0": "down", "1": "down"}
    future.cancel()
    await engine.stop()
    await cache.close()
