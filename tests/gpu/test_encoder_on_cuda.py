"""The encoder on a real CUDA device; skipped in one line where there is none."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.encode import onnx
from service.encode.device import Device
from service.encode.dispatcher import BatchRecord
from tests.service.encode.started import SHAPE, fill, running

pytestmark = [pytest.mark.gpu, pytest.mark.anyio]


async def test_batches_on_cuda_give_the_vectors_of_the_cpu(tmp_path: Path) -> None:
    """Padded to buckets, inputs bound and from pinned memory: the same to 1e-3, at two λ.

    By one process, and by two that share the device.
    """
    found: dict[str, list[Any]] = {"cpu": [], "cuda:0": [], "cuda:0,cuda:0": []}
    for devices, vectors in found.items():
        async with (
            running(tmp_path / devices, devices=devices.split(",")) as (encoder, slots),
            slots.lease((3, *SHAPE[1:])) as slot,
        ):
            fill(slots, slot)
            records: list[BatchRecord] = []
            encoder.observe(records.append)
            for clip_weight in (0.5, 0.1):
                answers = await asyncio.gather(
                    *(encoder.encode_clips(slot, clip_weight=clip_weight) for _ in range(5))
                )
                vectors += [answer.vectors for answer in answers]
            assert {record.outcome for record in records} == {"ok"}
    for here, *there in zip(*found.values(), strict=True):
        assert all(np.abs(here - other).max() < 1e-3 for other in there)


async def test_staging_memory_is_pinned(caplog: pytest.LogCaptureFixture) -> None:
    """CUDA takes it: nothing is said about ordinary memory."""
    memory = onnx.staging(1 << 20, Device("cuda"))
    memory[:] = 1
    assert "not from pinned" not in caplog.text
