"""What jobs borrow from the engine that serves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from service.decode.pool import DecodePool
from service.encode.process import EncoderProcess
from service.frames import FrameSlots
from service.index.video_index import VideoIndex
from service.label_encoder import LabelEncoder
from service.tagger import Tagger


@dataclass(frozen=True)
class EvaluationTools:
    """What jobs work with; all of it serves requests too."""

    encoder: EncoderProcess
    decoder: DecodePool
    slots: FrameSlots
    labels: LabelEncoder
    index: VideoIndex
    tagger: Tagger


Lend = Callable[[], AbstractAsyncContextManager[EvaluationTools]]
"""Gives the tools of what serves when a job begins; they stay the same until it ends."""
