"""Pixels to vectors: one actor of Ray for each device."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bulk.plan import Plan
from service.encode.device import Device
from service.encode.golden import check
from service.encode.runtime import Model
from service.videoclip.manifest import load_manifest
from service.videoclip.pooling import pool, unit
from service.videoclip.preprocessing import normalize


class Encoder:
    """Replaces ``pixels`` of rows of `Decoder` by ``vectors``, float32 (segments, D) as bytes.

    Args:
        plan: which network, at which λ.
        device: that it runs on.
        threads: of one call.
        clips_per_run: segments in one call of the network.

    Raises:
        ArtefactError, DeviceError: it does not run here, or not right; one line.
    """

    def __init__(self, plan: Plan, *, device: Device, threads: int, clips_per_run: int) -> None:
        manifest = self._manifest = load_manifest(plan.folder)
        self._clips_per_run = clips_per_run
        model = Model(
            plan.folder,
            manifest=manifest,
            runtime=plan.runtime,
            threads=threads,
            device=device,
            precision=plan.precision,
        )
        self._network = model.build(plan.space.clip_weight)
        check(self._network, manifest=manifest, precision=plan.precision)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Encode the segments of all rows of `batch` together.

        ``encode_seconds`` of a row is its share of the time by the number of its segments.
        """
        began = time.perf_counter()
        counts = [len(json.loads(spans)) for spans in batch["spans"]]
        vectors = self._encode(b"".join(batch["pixels"]), clips=sum(counts))
        seconds = (time.perf_counter() - began) / max(1, sum(counts))
        ends = np.cumsum(counts)
        kept = {name: list(values) for name, values in batch.items() if name != "pixels"}
        parts = np.split(vectors, ends[:-1])
        return {
            **kept,
            "vectors": [part.tobytes() for part in parts],
            "encode_seconds": [seconds * count for count in counts],
        }

    def _encode(self, pixels: bytes, *, clips: int) -> npt.NDArray[np.float32]:
        manifest = self._manifest
        size = manifest.preprocessing.image_size
        frames = np.frombuffer(pixels, np.uint8)
        frames = frames.reshape(clips, manifest.sampling.frames, size, size, 3)
        found = [np.empty((0, manifest.embedding_size), np.float32)]
        for start in range(0, clips, self._clips_per_run):
            some = normalize(frames[start : start + self._clips_per_run], manifest.preprocessing)
            found.append(unit(pool(self._network.video(some), pooling=manifest.pooling)))
        return np.concatenate(found)
