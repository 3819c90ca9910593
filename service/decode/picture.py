"""Decode a still picture in the sandbox that videos are decoded in."""

from __future__ import annotations

from pathlib import Path

from service.decode.answers import DecodedInfo, decoded_info
from service.decode.pool import DecodePool
from service.frames import Slot
from service.videoclip.manifest import Preprocessing, Sampling


async def decode_picture(
    pool: DecodePool, path: Path, *, sampling: Sampling, preprocessing: Preprocessing, slot: Slot
) -> DecodedInfo:
    """Decode a JPEG, PNG or WebP file into `slot`, as a video of one frame.

    Pictures say nothing about how long videos take, so nothing is learnt from them.

    Raises:
        VideoError: as `DecodePool.decode`.
    """
    answer = await pool.ask(
        path,
        {
            "op": "decode",
            "picture": True,
            "sampling": sampling.model_dump_json(),
            "preprocessing": preprocessing.model_dump_json(),
            "spans": None,
            "slot": {"offset": slot.offset, "shape": list(slot.shape)},
        },
    )
    return decoded_info(answer, slot=slot)
