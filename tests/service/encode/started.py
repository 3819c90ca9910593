"""A started encoder of the small artefact, and what its weights should give."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from service.encode.process import EncoderProcess
from service.frames import FrameSlots, Slot, map_slot
from service.videoclip.golden import Outputs
from service.videoclip.interpolation import interpolate
from tests.service.small_artefact import FRAMES, SIZE, Arrays, publish, weights

CLIP, TUNED = weights(1), weights(2, logit_scale=40.0)
SHAPE = (4, FRAMES, SIZE, SIZE, 3)
IDS = np.array([[512, 5, 6, 513], [512, 7, 513, 0]], np.int64)


@asynccontextmanager
async def running(
    root: Path,
    *,
    text_tower_tuned: bool = False,
    tuned: Arrays = TUNED,
    video_graph: bytes | None = None,
    module: str | None = None,
    golden: Mapping[float, Outputs] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[EncoderProcess, FrameSlots]]:
    """A started encoder of the small artefact, ended afterwards; `module` runs in its worker."""
    manifest = publish(
        root,
        clip=CLIP,
        tuned=tuned,
        text_tower_tuned=text_tower_tuned,
        video_graph=video_graph,
        golden=golden,
    )
    slots = FrameSlots(4, slot_bytes=1 << 20)
    folder = root / manifest.name / manifest.revision
    options = {"threads": 1, **options}
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, **options)
    if module is not None:
        for station in encoder.stations:
            station.worker._setup = replace(station.worker._setup, module=module)
    await encoder.start()
    try:
        yield encoder, slots
    finally:
        pids = [station.worker.pid for station in encoder.stations]
        await encoder.stop()
        slots.close()
        assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)


def fill(slots: FrameSlots, slot: Slot) -> npt.NDArray[np.uint8]:
    """Random pixels in the slot."""
    pixels = np.random.default_rng(3).integers(0, 256, slot.shape, np.uint8)
    map_slot(slots.descriptor, slot=slot)[...] = pixels
    return pixels


def at(clip_weight: float) -> Arrays:
    """Weights at λ, computed here."""
    mixed = interpolate(CLIP, TUNED, clip_weight=clip_weight)
    return {name: np.asarray(value, np.float32) for name, value in mixed.items()}
