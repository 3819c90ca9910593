"""What the hostile tests share: a good film, and decoding with small pictures."""

from __future__ import annotations

from pathlib import Path

from service.videoclip.decoding import DecodedClip, Limits, decode_clips
from service.videoclip.manifest import Preprocessing, Sampling

SMALL = Preprocessing(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
STAMPS = [40 * number for number in range(60)]


def decode(path: Path, *, frames: int = 8, limits: Limits | None = None) -> DecodedClip:
    """Uniform pictures of the whole file."""
    return decode_clips(
        path, sampling=Sampling(frames=frames), preprocessing=SMALL, limits=limits or Limits()
    )


def codes(clip: DecodedClip) -> set[str]:
    """Codes of the warnings."""
    return {warning.code for warning in clip.warnings}
