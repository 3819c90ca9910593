"""What will be made of a long video: its timeline, and the segments that it is cut into."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from service.deadline import until
from service.decode.parts import ask_cuts, ask_timeline
from service.decode.pool import DecodePool
from service.options import OptionError
from service.segments import Cutting, Span, part, require_count, window_count, windows
from service.videoclip.decoding import VideoInfo
from service.videoclip.manifest import Sampling
from service.videoclip.sampling import plan
from service.videoclip.timeline import Timeline, Times, frames_on_screen

_FIRST_SEARCH_SECONDS: Final = 15.0
_LAST_SEARCH_SECONDS: Final = 120.0
"""Of video that is searched for shots in one go: little at first, for an early answer."""

_LEAST_SHOT_SECONDS: Final = 0.4


@dataclass(frozen=True)
class SegmentPlan:
    """What will be made of one video.

    Attributes:
        info: about the video.
        timeline: when its pictures are shown.
        span: the part of it that is cut, seconds.
        cutting: how.
        sampling: of each segment, one view.
        count: segments; None: nobody knows before the shots were found.
        chosen: segments that are made instead of those of `cutting`; None: those.
    """

    info: VideoInfo
    timeline: Timeline
    span: Span
    cutting: Cutting
    sampling: Sampling
    count: int | None
    chosen: tuple[Span, ...] | None = None

    def times(self, spans: Sequence[Span]) -> Times:
        """Return the presentation times of the pictures of `spans`, float64 (V, T)."""
        rows = [
            plan(self.sampling, self.timeline, start=begin, end=stop)[0] for begin, stop in spans
        ]
        pts = self.timeline.pts_seconds
        result: Times = pts[frames_on_screen(np.stack(rows), pts)]
        return result


class SegmentPlanner:
    """Looks at videos and cuts them.

    Args:
        decoder: decodes; started.
        max_segments: most segments of one video.
    """

    def __init__(self, decoder: DecodePool, *, max_segments: int) -> None:
        self._decoder = decoder
        self._max_segments = max_segments

    async def plan(
        self,
        path: Path,
        *,
        cutting: Cutting,
        sampling: Sampling,
        start: float | None = None,
        end: float | None = None,
        deadline: float | None = None,
    ) -> SegmentPlan:
        """Look at a video and say what will be made of it.

        Args:
            path: a local file.
            cutting: how.
            sampling: which frames of a segment, as if it were a video.
            start: seconds, where the part to be cut begins.
            end: seconds, where it ends.
            deadline: `time.monotonic()` at which it is worthless.

        Raises:
            OptionError: more segments than allowed, or times of frames instead of a rule.
            VideoError: the video's fault.
            DeadlineExceededError: too late.
        """
        if sampling.mode == "explicit":
            raise OptionError(
                "invalid_segments",
                "Frames at given times cannot be chosen in every segment.",
                param="sampling.mode",
                limit=None,
                actual=len(sampling.times_seconds or ()),
            )
        one_view = sampling.model_copy(update={"views": 1})
        async with until(deadline):
            info, timeline = await ask_timeline(self._decoder, path)
        span = part(timeline.end_seconds, start=start, end=end)
        count = None
        if cutting.mode == "windows":
            assert cutting.length is not None  # noqa: S101 - windows have one
            count = window_count(span[1] - span[0], cutting.length, overlap=cutting.overlap)
            require_count(count, limit=self._max_segments)
        return SegmentPlan(info, timeline, span, cutting, one_view, count)

    async def spans(
        self, path: Path, made: SegmentPlan, *, deadline: float | None = None
    ) -> AsyncGenerator[list[Span], None]:
        """Yield the segments in order, in lists: shots as they are found.

        Raises:
            OptionError, VideoError, DeadlineExceededError: as `plan`.
        """
        if made.chosen is not None:
            yield list(made.chosen)
            return
        first, last = made.span
        cutting = made.cutting
        if cutting.mode == "windows":
            assert cutting.length is not None  # noqa: S101 - windows have one
            yield windows(made.span, cutting.length, overlap=cutting.overlap)
            return
        count, begin, searched, seconds = 0, first, first, _FIRST_SEARCH_SECONDS
        while searched < last:
            stop = min(searched + seconds, last)
            share = (stop - searched) / made.timeline.end_seconds
            async with until(deadline):
                cuts = await ask_cuts(self._decoder, path, start=searched, end=stop, share=share)
            found: list[Span] = []
            for cut in [*cuts, *([last] if stop == last else [])]:
                # On either side of the border of two searches there may be one each.
                if cut - begin >= _LEAST_SHOT_SECONDS or cut == last:
                    found += _limited((begin, cut), cutting.length)
                    begin = cut
            if found:
                count += len(found)
                require_count(count, limit=self._max_segments)
                yield found
            searched, seconds = stop, min(2 * seconds, _LAST_SEARCH_SECONDS)


def _limited(span: Span, length: float | None) -> list[Span]:
    return [span] if length is None else windows(span, length)
