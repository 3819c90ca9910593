"""Real files through `POST /classify`: playable ones get tags, others a problem, none a 5xx."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from tests.e2e.conftest import make_client

Data = Callable[[str], Path]
_LOSSLESS = {"qp": "0", "preset": "ultrafast"}
LABELS = ["a red flower", "a dog in a basket", "a man on a horse", "a road"]


@pytest.fixture(scope="module")
def client(tiny_artefact: Path) -> Iterator[httpx.Client]:
    """A client of a service with a real small network: unlike colours, it sees up and down."""
    with make_client({"VTAG_MODEL_STORE": str(tiny_artefact)}) as client:
        yield client


def _classify(client: httpx.Client, path: Path) -> httpx.Response:
    with path.open("rb") as file:
        return client.post(
            "/classify", files={"video": file}, data={"labels": LABELS, "include": "embedding"}
        )


def _embedding(client: httpx.Client, path: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    answer = _classify(client, path)
    assert answer.status_code == 200, answer.text
    return np.asarray(answer.json()["embedding"])


@pytest.mark.slow
def test_every_file_gets_an_answer(client: httpx.Client, shared_data: Data) -> None:
    """200 with the times of the frames, or a 4xx that says why; ready before and after."""
    folder = shared_data("videos")
    rows = list(csv.DictReader((folder / "MANIFEST.csv").read_text().splitlines()))
    assert len(rows) >= 40
    for row in rows:
        answer = _classify(client, folder / row["file"])
        body = answer.json()
        playable = int(row["decoded_frames"] or 0) > 0
        if playable:
            assert answer.status_code == 200, (row["file"], body)
            assert 1 <= len(body["video"]["frames_used"]) <= body["usage"]["frames"]
            assert len(body["tags"]) == len(LABELS)
            turned = int(row["rotation"] or 0) in (90, -90)
            upright = (row["height"], row["width"]) if turned else (row["width"], row["height"])
            if row["n_video"] == "1":
                assert (body["video"]["width"], body["video"]["height"]) == tuple(map(int, upright))
        else:
            assert answer.status_code in (415, 422), (row["file"], body)
            assert answer.headers["content-type"] == "application/problem+json"
            for leak in ("Errno", "av.", str(folder), row["file"], "spool"):
                assert leak not in body["detail"]
        assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quarter_turns"),
    [("fire2.mp4", 2), ("decord_video_90.mov", -1), ("portrait_4k60.mp4", -1)],
)
def test_rotated_films_are_upright(
    client: httpx.Client, shared_data: Data, tmp_path: Path, name: str, quarter_turns: int
) -> None:
    """The embedding is that of the same pictures stored upright, not of the pictures as stored."""
    source = shared_data(f"videos/{name}")
    found = _embedding(client, source)
    upright = _embedding(client, _stored(source, tmp_path / "upright.mkv", turns=quarter_turns))
    as_stored = _embedding(client, _stored(source, tmp_path / "raw.mkv", turns=0))
    assert found @ upright > 0.999
    assert found @ upright > found @ as_stored


def _stored(source: Path, target: Path, *, turns: int) -> Path:
    """Write the pictures, turned counter-clockwise, at their times and without a flag."""
    with av.open(str(source)) as film, av.open(str(target), "w") as copy:
        stream = None
        for frame in film.decode(video=0):
            if frame.pts is None or frame.time_base is None:
                continue
            step = max(1, frame.width // 600)  # both copies alike; large pictures take long
            picture = np.ascontiguousarray(
                np.rot90(frame.to_ndarray(format="rgb24"), turns)[::step, ::step]
            )
            height, width = (side // 2 * 2 for side in picture.shape[:2])
            if stream is None:
                stream = copy.add_stream("libx264", rate=30, options=_LOSSLESS)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
                stream.time_base = frame.time_base
            new = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[:height, :width]), format="rgb24"
            )
            new.pts, new.time_base = frame.pts, frame.time_base
            copy.mux(stream.encode(new))
        assert stream is not None
        copy.mux(stream.encode(None))
    return target


def test_the_same_film_in_two_codecs_gets_the_same_tags(
    client: httpx.Client, shared_data: Data
) -> None:
    """H.264 in MP4 and VP8 in WebM: the same order of tags, nearly the same scores."""
    one, other = (
        _classify(client, shared_data(f"videos/flower.{kind}")).json() for kind in ("mp4", "webm")
    )
    assert [tag["label"] for tag in one["tags"]] == [tag["label"] for tag in other["tags"]]
    for a, b in zip(one["tags"], other["tags"], strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=0.03)
    assert np.asarray(one["embedding"]) @ np.asarray(other["embedding"]) > 0.999
