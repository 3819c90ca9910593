"""One captioning job: a list of videos in, a file of captions out."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from training.captioning import prompt
from training.captioning.frame_captioner import FrameCaptioner
from training.captioning.pipeline import caption_frames, merge_captions
from training.captioning.records import Records
from training.captioning.summariser import Summariser
from training.data.annotations import read_video_list
from training.errors import Refusal

_POSITIVE = ("frames", "beams", "batch_size", "texts_at_once", "threads")


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """What `python -m training caption` was told; see its help.

    part: "i/n", the i-th of n parts of the list. only: the stage to run; None for both.
    """

    videos: Path
    out: Path
    blip2: str
    language_model: str
    root: Path | None = None
    frames: int = 16
    beams: int = 1
    batch_size: int = 16
    texts_at_once: int = 8
    threads: int = 2
    part: str = "1/1"
    only: Literal["frames", "merge"] | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise Refusal(f"{name} = {getattr(self, name)}: 1 or more")
        self.share()
        if self.out.suffix != ".jsonl":
            raise Refusal(f"{self.out}: captions are JSON Lines; the name must end in .jsonl")

    def share(self) -> tuple[int, int]:
        """The part as (i, n), 1 <= i <= n."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.part)
        i, n = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= i <= n:
            raise Refusal(f"part = {self.part!r}: expected I/N with I from 1 to N, such as 2/8")
        return i, n

    def named_videos(self) -> list[tuple[str, Path]]:
        """This part's videos, each once, by the names that captions are found by again."""
        base = self.root or (self.videos if self.videos.is_dir() else self.videos.parent)
        listed = read_video_list(self.videos, root=self.root, labelled=False)
        named = {_name(video.path, base): video.path for video in listed}
        i, n = self.share()
        return list(named.items())[i - 1 :: n]

    def frame_settings(self) -> dict[str, Any]:
        """What decides the captions of frames."""
        return {"blip2": self.blip2, "frames": self.frames, "beams": self.beams}

    def settings(self) -> dict[str, Any]:
        """What decides the captions."""
        asked = "\n".join((prompt.SYSTEM, prompt.BEFORE, prompt.AFTER, prompt.OPENING))
        return {
            **self.frame_settings(),
            "language_model": self.language_model,
            "prompt_sha256": hashlib.sha256(asked.encode()).hexdigest(),
        }


def caption(job: CaptionJob) -> None:
    """Do the job, print what was done, and list the videos that were left out.

    Raises VideoListError, CaptionModelError, RecordError; Refusal when nothing has a caption.
    """
    videos = job.named_videos()
    between = job.out.with_name(f"{job.out.stem}.frames.jsonl")
    failed: list[tuple[str, str]] = []
    with Records(between, field="captions", settings=job.frame_settings()) as frames:
        if job.only != "merge":
            failed += _caption_frames(job, videos, frames)
        done, last = frames.done, between
        if job.only != "frames":
            with Records(job.out, field="caption", settings=job.settings()) as captions:
                failed += _merge(job, [name for name, _ in videos], frames, captions)
            done, last = captions.done, job.out
    for name, reason in failed:
        print(f"left out: {name}: {reason}")
    there = sum(name in done for name, _ in videos)
    if not there:
        why = ": ".join(failed[0]) if failed else f"{between.name} has none of their frames"
        raise Refusal(f"{job.videos}: none of {len(videos)} videos got a caption; {why}")
    print(f"{last}: {there} of {len(videos)} videos")


def _caption_frames(
    job: CaptionJob, videos: Sequence[tuple[str, Path]], records: Records
) -> tuple[tuple[str, str], ...]:
    waiting = [(name, path) for name, path in videos if name not in records.done]
    if not waiting:
        return ()
    captioner = FrameCaptioner(job.blip2, beams=job.beams)
    with tqdm(total=len(waiting), desc="caption frames", unit="video") as bar:
        return caption_frames(
            captioner,
            waiting,
            records,
            frames=job.frames,
            batch_size=job.batch_size,
            threads=job.threads,
            on_videos=bar.update,
        )


def _merge(
    job: CaptionJob, names: Sequence[str], frames: Records, records: Records
) -> tuple[tuple[str, str], ...]:
    waiting = [name for name in names if name in frames.done and name not in records.done]
    if not waiting:
        return ()
    summariser = Summariser(job.language_model)
    with tqdm(total=len(waiting), desc="merge captions", unit="video") as bar:
        return merge_captions(
            summariser,
            {name: frames.done[name] for name in waiting},
            records,
            batch_size=job.texts_at_once,
            on_videos=bar.update,
        )


def _name(path: Path, base: Path) -> str:
    """The path from the list's folder, if it lies there: a list may be used on other machines."""
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
