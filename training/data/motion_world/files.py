"""Motion World on disk: H.264 files in MP4 and a list of them with labels and captions."""

import csv
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
from tqdm import tqdm

from training.data.motion_world.drawing import Camera, Frames, draw
from training.data.motion_world.sets import Example

LIST_NAME = "list.csv"


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


def write_set(
    folder: Path, examples: Iterable[Example], *, camera: Camera, title: str, total: int
) -> None:
    """Draw and encode a set into ``folder``, with ``list.csv`` (path, label, caption).

    The list is written last: a folder with a list is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, example in enumerate(tqdm(examples, desc=title, total=total, unit="video")):
        name = f"{index:06d}.mp4"
        write_video(folder / name, draw(example.scene, camera), seconds=camera.seconds)
        rows.append((name, example.label, example.caption))
    temporary = folder / (LIST_NAME + ".partial")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "caption"))
        writer.writerows(rows)
    temporary.rename(folder / LIST_NAME)


def read_list(folder: Path) -> list[tuple[Path, int, str]]:
    """The videos of a folder that ``write_set`` completed: path, label, caption.

    Raises:
        FileNotFoundError: the set was never written to its end.
    """
    with (folder / LIST_NAME).open(newline="", encoding="utf-8") as file:
        return [
            (folder / row["path"], int(row["label"]), row["caption"])
            for row in csv.DictReader(file)
        ]
