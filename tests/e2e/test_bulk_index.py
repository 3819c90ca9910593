"""`vtag index --engine ray`: what it loads is what the service would have indexed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from tests.running_service import running_service
from tests.s3_server import S3Server

pytest.importorskip("ray", reason="Ray is not installed: pip install 'vtag[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 8


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of different lengths, one of them damaged, one twice, and a file of text."""
    root = tmp_path_factory.mktemp("films")
    (root / "deep").mkdir()
    for number in range(COUNT):
        draw_video(root / "deep" / f"{number}.mp4", seconds=1.0 + number)
    shutil.copy(root / "deep" / "0.mp4", root / "copy.mp4")
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "notes.txt").write_text("not a video")
    return root


def command(source: object, *more: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "service.bulk.command", "index", str(source), *more]


def settings(state: Path, store: Path, **more: str) -> dict[str, str]:
    """The environment of the command and of the service after it."""
    return {
        **os.environ,
        "VTAG_MODEL_STORE": str(store),
        "VTAG_DATA_DIR": str(state / "data"),
        "VTAG_SEGMENT_SECONDS": "1",
        **more,
    }


def load(
    source: object, environment: Mapping[str, str], *more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(source, *more),
        cwd=REPOSITORY,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_it_goes_on_after_a_kill_and_the_service_finds_everything(
    films: Path, state: Path, small_store: Path
) -> None:
    """Whole videos once, under their paths, with the vectors that `POST /videos` gives them."""
    environment = settings(state, small_store)
    checkpoint = state / "load.jsonl"
    first = subprocess.Popen(
        command(films, "--checkpoint", str(checkpoint)),
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not checkpoint.exists():
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)  # before it has written anything, or after
    first.wait()
    again = load(films, environment, "--checkpoint", str(checkpoint))
    assert again.returncode == 1, again.stderr  # one of them is no video
    assert f"{COUNT + 2} videos in {films}" in again.stderr
    done = {line["name"]: line for line in map(json.loads, checkpoint.open())}
    assert len(done) == COUNT + 2
    assert done["broken.mp4"]["outcome"] == "failed"
    assert done["broken.mp4"]["code"]
    third = load(films, environment, "--checkpoint", str(checkpoint))
    assert (third.returncode, third.stderr.count("\n")) == (0, 1), third.stderr
    assert f"{COUNT + 2} done before" in third.stderr
    with (
        running_service(state, environment=environment) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        videos = client.get("/videos", params={"limit": 200}).json()["data"]
        assert len(videos) == COUNT  # the copy is the same video
        assert {video["external_id"] for video in videos} - {"copy.mp4"} >= {
            f"deep/{number}.mp4" for number in range(1, COUNT)
        }
        assert {video["external_id"]: video["segments"] for video in videos} == {
            video["external_id"]: round(video["duration"]) for video in videos
        }
        assert client.post("/collections", json={"name": "sent"}).status_code == 201
        for video in videos:
            name = video["external_id"]
            sent = client.post(
                "/videos",
                files={"video": (films / name).read_bytes()},
                data={"collection": "sent", "external_id": name},
            )
            assert sent.status_code == 201, sent.text
        loaded, sent_there = found(client, "default"), found(client, "sent")
        assert loaded.keys() == sent_there.keys()
        assert len(loaded) == sum(video["segments"] for video in videos)
        for place, cosine in loaded.items():
            assert cosine == pytest.approx(sent_there[place], abs=1e-5)


def found(client: httpx.Client, collection: str) -> dict[tuple[str, float, float], float]:
    """(external id, start, end) of each segment of a collection -> its cosine with a text."""
    query = {"query": "thing 3", "collection": collection, "top_k": 100, "per_video": 20}
    answer = client.post("/search", json=query)
    assert answer.status_code == 200, answer.text
    return {
        (hit["external_id"], part["start"], part["end"]): part["cosine"]
        for hit in answer.json()["data"]
        for part in hit["segments"]
    }


def test_a_bucket_is_read_object_by_object(
    films: Path, state: Path, small_store: Path, tmp_path: Path
) -> None:
    """`s3://bucket/prefix` gives the same videos as the folder; names are below the prefix."""
    from obstore.store import S3Store

    server = S3Server(tmp_path)
    try:
        httpx.put(f"{server.url}/films")
        environment = settings(state, small_store, **server.environment)
        os_before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        try:
            bucket = S3Store("films", client_options={"allow_http": True})
            for name in ("deep/1.mp4", "deep/2.mp4", "broken.mp4", "notes.txt"):
                bucket.put(f"2026/{name}", (films / name).read_bytes())
        finally:
            for name, value in os_before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        loaded = load("s3://films/2026", environment)
        assert loaded.returncode == 1, loaded.stderr
        assert "3 videos in s3://films/2026" in loaded.stderr
        assert "2 indexed, 0 known, 1 failed" in loaded.stderr
        (checkpoint,) = (state / "data" / "bulk").glob("*.jsonl")
        names = [json.loads(line)["name"] for line in checkpoint.open()]
        assert sorted(names) == ["broken.mp4", "deep/1.mp4", "deep/2.mp4"]
    finally:
        server.stop()


def test_mistakes_are_one_line(films: Path, state: Path, small_store: Path) -> None:
    """Exit code 2, before Ray is started; nothing is written."""
    environment = settings(state, small_store)
    for arguments, words in (
        (["/no/such/folder"], "no such folder"),
        (["gs://x/y"], "nothing else"),
        ([str(films), "--lambda", "1.5"], "--lambda: 0 to 1, not 1.5"),
        ([str(films), "--segment-seconds", "0"], "--segment-seconds: 0.1 to 3600, not 0"),
        ([str(films), "--collection", "films"], "no collection 'films'"),
    ):
        refused = load(arguments[0], environment, *arguments[1:])
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.splitlines()[-1].startswith("vtag: ")
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_cluster_of_its_own_answers_nobody_without_the_token(tmp_path: Path) -> None:
    """Ray listens on every address: who does not know the token of this load gets nothing."""
    script = """
import os, subprocess, sys
from service.bulk import ray_environment
ray_environment.prepare(own_cluster=True)
from service.bulk import ray_engine
with ray_engine.cluster(None):
    import ray
    address = ray.get_runtime_context().gcs_address
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    join = "import ray, sys; ray.init(address=sys.argv[1]); print('joined')"
    for secret in (None, os.environ["RAY_AUTH_TOKEN"], "0" * 64):
        own = {} if secret is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret}
        told = subprocess.run([sys.executable, "-c", join, address], env=stranger | own,
                              capture_output=True, text=True, timeout=120)
        print("joined" in told.stdout)
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert told.stdout.split() == ["False", "True", "False"], told.stderr[-2000:]
