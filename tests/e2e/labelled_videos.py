"""Drawn videos with labels, as users pack them, and jobs as clients wait for them."""

import csv
import io
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from training.data.annotations import LabelledVideo
from training.data.motion_world import files, sets
from training.data.motion_world.drawing import Camera, draw

UNUSED_SEED = 20_261  # no configuration of the demo draws from it
ENDED = ("succeeded", "failed", "cancelled")


def draw_set(folder: Path, *, names: Sequence[str], count: int) -> list[LabelledVideo]:
    """Draw `count` test videos of each of the named sets of Motion World."""
    videos: list[LabelledVideo] = []
    for name in names:
        for example in sets.examples(name, "test", count=count, seed=UNUSED_SEED):
            path = folder / f"{len(videos):06d}.mp4"
            files.write_video(path, draw(example.scene, Camera()), seconds=Camera().seconds)
            videos.append(LabelledVideo(path, example.label))
    return videos


def pack(videos: Sequence[LabelledVideo], *, more: dict[str, bytes] | None = None) -> bytes:
    """A zip with the videos in folders by number and a CSV list; and what else is given."""
    target = io.BytesIO()
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(("path", "label"))
    with zipfile.ZipFile(target, "w") as archive:
        for number, video in enumerate(videos):
            name = f"{number % 3}/{video.path.name}"
            archive.writestr(f"set/{name}", video.path.read_bytes())
            writer.writerow((name, video.label))
        archive.writestr("set/list.csv", rows.getvalue())
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return target.getvalue()


def send(client: httpx.Client, archive: bytes, **options: object) -> httpx.Response:
    """Send an archive to be evaluated."""
    data = {"request": json.dumps(options)} if options else {}
    return client.post("/lambda/evaluate", files={"archive": archive}, data=data)


def wait(client: httpx.Client, job_id: str, *, seconds: float = 150.0) -> dict[str, Any]:
    """The job once it has ended."""
    end = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        if job["status"] in ENDED:
            return job
        assert time.monotonic() < end, job
        time.sleep(0.1)


def wait_until_gone(folder: Path, *, seconds: float = 60.0) -> None:
    """Wait until the material of a job is removed."""
    end = time.monotonic() + seconds
    while folder.exists():
        assert time.monotonic() < end, sorted(folder.rglob("*"))
        time.sleep(0.05)
