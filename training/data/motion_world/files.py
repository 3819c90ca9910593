"""Motion World on disk: H.264 files in MP4 and a list of them with labels and captions.

The list is of the form that ``training.video_list`` reads.
"""

import csv
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from training.data.motion_world.drawing import Camera, Frames, draw
from training.data.motion_world.sets import Example

LIST_NAME = "list.csv"
_FACTS_NAME = "drawn.json"


def write_video(target: Path, frames: Frames, *, seconds: float) -> None:
    """Encode frames, uint8 (T, H, W, 3) RGB, as H.264 in MP4 at T / seconds frames a second."""
    count, height, width, _ = frames.shape
    rate = Fraction(count, 1) / Fraction(seconds).limit_denominator(1000)
    with av.open(str(target), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "18", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@dataclass(frozen=True)
class _Job:
    target: Path
    example: Example
    camera: Camera


def _write(job: _Job) -> None:
    write_video(job.target, draw(job.example.scene, job.camera), seconds=job.camera.seconds)


def read_facts(folder: Path) -> dict[str, Any]:
    """What a set was drawn with, as `write_set` was told; nothing where it was told nothing."""
    path = folder / _FACTS_NAME
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return facts


def write_set(
    folder: Path,
    examples: Sequence[Example],
    *,
    camera: Camera,
    processes: int,
    title: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Draw and encode a set into ``folder``, with ``list.csv`` (path, label, caption).

    The list is written last: a folder with a list is complete. facts: for `read_facts`, as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if facts is not None:
        (folder / _FACTS_NAME).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    names = [f"{index:06d}.mp4" for index in range(len(examples))]
    jobs = [
        _Job(folder / name, example, camera) for name, example in zip(names, examples, strict=True)
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        written = pool.imap_unordered(_write, jobs, chunksize=16)
        for _ in tqdm(written, desc=title, total=len(jobs), unit="video"):
            pass
    temporary = folder / (LIST_NAME + ".partial")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "caption"))
        for name, example in zip(names, examples, strict=True):
            writer.writerow((name, example.label, example.caption))
    temporary.rename(folder / LIST_NAME)
