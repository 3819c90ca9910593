"""Which moments of a video a training clip shows: drawn first, then laid on the video's times."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.videoclip.clips import Plan
from service.videoclip.sampling import (
    Timeline,
    Times,
    segment_start_times,
    segment_times,
    strided_times_at,
    uniform_times,
)
from training.config import ConfigError

ClipMode = Literal["random_segments", "strided", "strided_exact", "uniform", "segment_starts"]
_STRIDED: tuple[ClipMode, ...] = ("strided", "strided_exact")
#: Open-VCLIP's 16 frames, at the 30 frames a second that its videos were made for.
OPEN_VCLIP_STRIDE_SECONDS = 16 / 30


@dataclass(frozen=True, kw_only=True)
class ClipSampling:
    """How a training clip is taken out of a video.

    ``random_segments``: a random moment in each of `frames` equal parts (ViFi-CLIP, FitCLIP,
    Text4Vis). ``strided``: `frames` pictures from a random moment on, as Open-VCLIP's code takes
    them: a little more than `stride_seconds` apart, and the last nearer (18 pictures at 30 a
    second, and 4 at the end of 8 frames; see `service.videoclip.sampling.strided_times`).
    ``strided_exact``: all `stride_seconds` apart, as its paper says. ``uniform`` and
    ``segment_starts`` are not random: the middles of equal parts, and the first picture of each.

    stride_seconds: of the strided modes; None takes Open-VCLIP's 16 pictures at 30 a second.

    ViFi-CLIP's code counts pictures instead of seconds, cuts a video of N into parts of N // T and
    never shows the rest; at a constant rate and with N a multiple of T there is no difference.
    """

    mode: ClipMode = "random_segments"
    frames: int = 8
    stride_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames = {self.frames}: below 1")
        if self.stride_seconds is not None and self.mode not in _STRIDED:
            raise ConfigError(
                f"stride_seconds: for the modes 'strided' and 'strided_exact', not {self.mode!r}"
            )
        if self.stride_seconds is not None and not self.stride_seconds > 0:
            raise ConfigError(f"stride_seconds = {self.stride_seconds}: not above 0")

    def draw(self, rng: np.random.Generator) -> Plan:
        """One clip of a video that is not known yet: its timeline -> float64 (1, frames).

        The plan holds all random choices: it gives the same times to the same timeline.
        """
        shares = rng.random(self.frames)
        position = rng.random(1)

        def plan(timeline: Timeline) -> Times:
            end = timeline.end_seconds
            if self.mode in _STRIDED:
                return strided_times_at(
                    0.0,
                    end,
                    frames=self.frames,
                    stride_seconds=self.stride_seconds or OPEN_VCLIP_STRIDE_SECONDS,
                    positions=position,
                    frame_seconds=timeline.frame_seconds,
                    exact=self.mode == "strided_exact",
                )
            if self.mode == "random_segments":
                return segment_times(0.0, end, shares=shares)[None]
            if self.mode == "segment_starts":
                return segment_start_times(0.0, end, frames=self.frames, timeline=timeline)[None]
            return uniform_times(0.0, end, frames=self.frames)[None]

        return plan
