"""Vectors to the index: whole videos, many in one transaction, then lines in the checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from service.bulk.checkpoint import Checkpoint, Done, Outcome
from service.bulk.plan import Plan
from service.bulk.source import SourceFile
from service.index.segment import NewSegment
from service.index.video_index import Batch, NewVideo
from service.videoclip.decoding import VideoInfo

_SEGMENTS: Final = 2000
_VIDEOS: Final = 256
"""Of one transaction: COPY pays from some hundred rows on."""

_SECONDS: Final = 10.0
"""Between two transactions: what a kill loses of slow loads."""


MOST_NAME: Final = 256
"""Longest external id; videos below longer paths have none."""


Load = Callable[[Batch], Sequence[bool]]
"""Writes many videos at once, and tells for each whether it is new; as `VideoIndex.add_many`."""


class Writer:
    """Collects the parts of videos from rows of `Encoder`, in any order.

    Args:
        plan: where they go.
        load: writes them.
        checkpoint: told of what is written, or cannot be.

    Attributes:
        videos: that are complete or cannot be, written or not yet.
        segments: of videos that are complete.
        seconds: of decoding, encoding and writing, by stage; of all workers together.
    """

    def __init__(self, plan: Plan, *, load: Load, checkpoint: Checkpoint) -> None:
        self._plan = plan
        self._load = load
        self._checkpoint = checkpoint
        self._parts: dict[str, dict[int, list[NewSegment]]] = {}
        self._ready: list[tuple[SourceFile, NewVideo, list[NewSegment]]] = []
        self._failed: list[Done] = []
        self._flushed = time.monotonic()
        self.videos = self.segments = 0
        self.seconds = {"decode": 0.0, "encode": 0.0, "write": 0.0}

    def take(self, row: Mapping[str, Any]) -> None:
        """Take a row; write when there is enough."""
        self.seconds["decode"] += float(row["seconds"])
        self.seconds["encode"] += float(row["encode_seconds"])
        file = SourceFile(str(row["name"]), int(row["size"]), str(row["version"]))
        if row["code"]:
            # Parts of it may have come before the one that is damaged.
            self._parts.pop(file.name, None)
            self._failed.append(Done(file, "failed", str(row["code"])))
            self.videos += 1
        else:
            parts = self._parts.setdefault(file.name, {})
            parts[int(row["part"])] = _segments(row, dimensions=self._plan.space.dimensions)
            if len(parts) == int(row["parts"]):
                del self._parts[file.name]
                segments = [each for number in sorted(parts) for each in parts[number]]
                self._ready.append((file, self._video(file, row), segments))
                self.videos += 1
                self.segments += len(segments)
        waiting = sum(len(segments) for _, _, segments in self._ready)
        many = waiting >= _SEGMENTS or len(self._ready) + len(self._failed) >= _VIDEOS
        if many or time.monotonic() - self._flushed >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits, if anything does."""
        began = time.perf_counter()
        new = self._load([(video, segments) for _, video, segments in self._ready])
        outcomes: list[Outcome] = ["indexed" if is_new else "known" for is_new in new]
        done = [Done(file, o) for (file, *_), o in zip(self._ready, outcomes, strict=True)]
        self._checkpoint.add([*done, *self._failed])
        self._ready, self._failed = [], []
        self._flushed = time.monotonic()
        self.seconds["write"] += time.perf_counter() - began

    def _video(self, file: SourceFile, row: Mapping[str, Any]) -> NewVideo:
        info = VideoInfo(**json.loads(row["info"]))
        return NewVideo(
            sha256=str(row["sha256"]),
            size_bytes=file.size_bytes,
            external_id=file.name if len(file.name) <= MOST_NAME else None,
            metadata=None,
            duration_seconds=info.duration_seconds,
            fps=info.fps,
            width=info.width,
            height=info.height,
            codec=info.codec,
            collection=self._plan.collection,
        )


def _segments(row: Mapping[str, Any], *, dimensions: int) -> list[NewSegment]:
    vectors = np.frombuffer(row["vectors"], np.float32).reshape(-1, dimensions)
    spans = json.loads(row["spans"])
    return [
        NewSegment(start, end, vector) for (start, end), vector in zip(spans, vectors, strict=True)
    ]
