"""Videos are written whole, in transactions of many, and noted when they are in the index."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bulk import writer as module
from service.bulk.checkpoint import Checkpoint
from service.bulk.plan import Plan
from service.bulk.source import Folder
from service.bulk.writer import Writer
from service.index.space import Space
from service.index.video_index import Batch
from service.videoclip.decoding import Limits, VideoInfo

INFO = VideoInfo(
    container="mov",
    codec="h264",
    width=64,
    height=48,
    rotation_degrees=0,
    fps=15.0,
    duration_seconds=12.0,
    frame_count=180,
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three dimensions are enough."""
    space = Space("small", "0123456789ab", 0.5, 3)
    limits = Limits()
    return Plan(
        Folder(tmp_path),
        tmp_path,
        space,
        collection="films",
        segment_seconds=4.0,
        max_segments=100,
        limits=limits,
        decode_timeout_seconds=60.0,
        sandbox="auto",
        runtime="onnx",
        precision="float32",
    )


class Index:
    """Remembers transactions; contents that came before are not new."""

    def __init__(self) -> None:
        self.loads: list[Batch] = []
        self._known: set[str] = set()

    def __call__(self, batch: Batch) -> list[bool]:
        """As `VideoIndex.add_many`."""
        self.loads.append(batch)
        new = [video.sha256 not in self._known for video, _ in batch]
        self._known.update(video.sha256 for video, _ in batch)
        return new


def row(name: str, *, part: int = 0, parts: int = 1, sha256: str | None = None) -> dict[str, Any]:
    """One segment of a video, whose vector tells its part."""
    return {
        "name": name,
        "size": 7,
        "version": "v",
        "sha256": sha256 or name,
        "info": json.dumps(asdict(INFO)),
        "part": part,
        "parts": parts,
        "spans": json.dumps([(4.0 * part, 4.0 * part + 4.0)]),
        "vectors": np.eye(3, dtype=np.float32)[part].tobytes(),
        "seconds": 0.5,
        "encode_seconds": 0.25,
        "code": "",
        "detail": "",
    }


def failed(name: str) -> dict[str, Any]:
    """What is left of a damaged video."""
    return {**row(name), "parts": 0, "spans": "[]", "vectors": b"", "code": "video_truncated"}


def test_parts_may_come_in_any_order(plan: Plan, tmp_path: Path) -> None:
    """A video is written once all are there, its segments in the order of time."""
    index, checkpoint = Index(), Checkpoint(tmp_path / "c.jsonl")
    writer = Writer(plan, load=index, checkpoint=checkpoint)
    for each in (row("a", part=2, parts=3), row("b"), row("a", part=0, parts=3)):
        writer.take(each)
    writer.flush()
    assert [[video.external_id for video, _ in load] for load in index.loads] == [["b"]]
    writer.take(row("a", part=1, parts=3))
    writer.flush()
    ((video, segments),) = index.loads[1]
    assert (video.collection, video.sha256, video.duration_seconds) == ("films", "a", 12.0)
    assert [segment.start_seconds for segment in segments] == [0.0, 4.0, 8.0]
    np.testing.assert_array_equal([segment.vector for segment in segments], np.eye(3))
    assert (writer.videos, writer.segments) == (2, 4)
    assert writer.seconds["decode"] == 2.0
    assert writer.seconds["encode"] == 1.0
    checkpoint.close()


def test_a_video_that_breaks_in_the_middle_is_not_written(plan: Plan, tmp_path: Path) -> None:
    """Nor its parts that were fine; the checkpoint says why."""
    index, checkpoint = Index(), Checkpoint(tmp_path / "c.jsonl")
    writer = Writer(plan, load=index, checkpoint=checkpoint)
    for each in (row("a", part=0, parts=2), failed("a"), row("b")):
        writer.take(each)
    writer.flush()
    assert [video.sha256 for load in index.loads for video, _ in load] == ["b"]
    assert checkpoint.outcomes == {"indexed": 1, "failed": 1}
    checkpoint.close()
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [line.get("code") for line in lines] == [None, "video_truncated"]


def test_the_checkpoint_follows_the_index(plan: Plan, tmp_path: Path) -> None:
    """A transaction that fails leaves no line: the next load does these videos again."""
    checkpoint = Checkpoint(tmp_path / "c.jsonl")

    def broken(_: Batch) -> list[bool]:
        raise ConnectionError

    writer = Writer(plan, load=broken, checkpoint=checkpoint)
    writer.take(row("a"))
    with pytest.raises(ConnectionError):
        writer.flush()
    checkpoint.close()
    assert (tmp_path / "c.jsonl").read_bytes() == b""


def test_it_writes_when_there_is_enough(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many videos, many segments, or a long time: each of the three."""
    index, checkpoint = Index(), Checkpoint(tmp_path / "c.jsonl")
    monkeypatch.setattr(module, "_VIDEOS", 3)
    writer = Writer(plan, load=index, checkpoint=checkpoint)
    for number in range(7):
        writer.take(row(f"v{number}"))
    assert [len(load) for load in index.loads] == [3, 3]
    monkeypatch.setattr(module, "_SEGMENTS", 2)
    writer.take(row("w"))
    assert [len(load) for load in index.loads] == [3, 3, 2]
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    writer.take(row("x"))
    assert [len(load) for load in index.loads] == [3, 3, 2, 1]
    checkpoint.close()


def test_contents_that_are_there_are_known(plan: Plan, tmp_path: Path) -> None:
    """The same bytes under two names are one video; a path that is too long is no external id."""
    index, checkpoint = Index(), Checkpoint(tmp_path / "c.jsonl")
    writer = Writer(plan, load=index, checkpoint=checkpoint)
    writer.take(row("a", sha256="same"))
    writer.flush()
    writer.take(row("d" * 300, sha256="same"))
    writer.flush()
    assert checkpoint.outcomes == {"indexed": 1, "known": 1}
    assert [video.external_id for load in index.loads for video, _ in load] == ["a", None]
    checkpoint.close()
