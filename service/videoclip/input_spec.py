"""What the network is shown of a video: which frames, and how each becomes a square of numbers."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Share = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(_finite)]
Three = tuple[Finite, Finite, Finite]
Interpolation = Literal[
    "bicubic", "bilinear", "bilinear_without_antialias", "bicubic_without_antialias"
]


class Frozen(BaseModel):
    """A part of the manifest: no other fields, no NaN, no change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(Frozen):
    """Which frames of a video make its clips; `service.videoclip.sampling.plan` reads it.

    ``uniform``: the middles of `frames` equal parts. ``segment_starts``: the first picture of
    each of `frames` equal parts (Text4Vis). ``strided``: Open-VCLIP's clip, its frames about
    `stride_seconds` apart, `views` clips spread over the video. ``keyframes``: key pictures of
    the stream. ``explicit``: `times_seconds`, as given.
    """

    mode: Literal["uniform", "segment_starts", "strided", "keyframes", "explicit"] = "uniform"
    frames: int = Field(ge=1, le=4096)
    views: int = Field(default=1, ge=1, le=64)
    stride_seconds: Finite | None = Field(default=None, gt=0.0)
    times_seconds: tuple[Finite, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mode == "strided") != (self.stride_seconds is not None):
            raise ValueError("stride_seconds: needed by mode 'strided', and by no other")
        if (self.mode == "explicit") != (self.times_seconds is not None):
            raise ValueError("times_seconds: needed by mode 'explicit', and by no other")
        if self.times_seconds is not None:
            if len(self.times_seconds) != self.frames:
                raise ValueError(
                    f"times_seconds: {len(self.times_seconds)} times for frames = {self.frames}"
                )
            if any(time < 0 for time in self.times_seconds):
                raise ValueError("times_seconds: a time is negative")
        if self.views != 1 and self.mode != "strided":
            raise ValueError(f"views: {self.views}, but mode {self.mode!r} has one view")
        return self


class Preprocessing(Frozen):
    """From an upright RGB picture to the network's input; `service.videoclip.preprocessing`.

    The shorter side becomes `resize_size` pixels (None: `image_size`), then the middle square of
    `image_size` is cut out. ``bicubic`` and ``bilinear`` are Pillow's, antialiased: open_clip's
    inference transform, and Text4Vis. ``…_without_antialias`` take the pixels nearest to each
    point, however much the picture shrinks, as torch does with tensors: Open-VCLIP and ViFi-CLIP
    (bilinear), FitCLIP (bicubic).
    """

    image_size: int = Field(ge=1, le=4096)
    resize: Literal["shortest_side"] = "shortest_side"
    # Newer than schema version 1: while it is None it is not written, see `revision_of`.
    resize_size: int | None = Field(
        default=None, ge=1, le=8192, exclude_if=lambda value: value is None
    )
    interpolation: Interpolation = "bicubic"
    crop: Literal["center"] = "center"
    mean: Three
    std: Three

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std: {self.std} must be above 0")
        if self.resize_size is not None and self.resize_size <= self.image_size:
            # Equal sizes have one spelling, so that equal models have one revision.
            raise ValueError(
                f"resize_size: {self.resize_size} is not above image_size, {self.image_size}"
            )
        return self
