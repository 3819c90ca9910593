"""The one path while things go wrong around it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.deadline import DeadlineExceededError
from service.labels import LabelQuery
from service.videoclip.errors import UnsupportedContainer
from tests.drawn_video import draw_video
from tests.redis_server import RedisServer
from tests.service.engine import LABELS, running
from tests.service.processes import endless_file, wait_gone


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


@pytest.mark.anyio
@pytest.mark.parametrize("text_tower_tuned", [False, True])
async def test_requests_during_lambda_changes_are_all_answered_and_unmixed(
    tmp_path: Path, video: Path, text_tower_tuned: bool
) -> None:
    """λ switched again and again under load: equal spaces mean equal answers."""
    async with running(tmp_path, text_tower_tuned=text_tower_tuned) as engine:
        known: dict[str, list[tuple[str, float]]] = {}
        for value in (0.0, 0.5, 1.0):
            await engine.tagger.set_clip_weight(value)
            answer = await engine.tagger.classify(video, labels=LABELS, scores="cosine")
            known[answer.space.id] = [(tag.label, tag.score) for tag in answer.tags]
        done = asyncio.Event()

        async def load() -> int:
            count = 0
            while not done.is_set():
                found = await engine.tagger.classify(video, labels=LABELS, scores="cosine")
                for tag, expected in zip(found.tags, known[found.space.id], strict=True):
                    assert tag.label == expected[0]
                    assert tag.score == pytest.approx(expected[1], abs=1e-5)
                count += 1
            return count

        loads = [asyncio.create_task(load()) for _ in range(3)]
        for number in range(12):
            await engine.tagger.set_clip_weight((0.0, 0.5, 1.0)[number % 3])
            await asyncio.sleep(0.02)
        done.set()
        assert sum(await asyncio.gather(*loads)) >= 3


@pytest.mark.anyio
async def test_a_bad_video_beside_good_ones_changes_nothing(tmp_path: Path, video: Path) -> None:
    """The bad one gets its error, the good ones the answers that they get alone."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(os.urandom(2000))
    async with running(tmp_path / "store") as engine:
        alone = await engine.tagger.classify(video, labels=LABELS)
        results = await asyncio.gather(
            *(
                engine.tagger.classify(path, labels=LABELS)
                for path in (video, bad, video, bad, video)
            ),
            return_exceptions=True,
        )
        assert [isinstance(result, UnsupportedContainer) for result in results] == [
            *(False, True, False, True, False)
        ]
        assert all(result.tags == alone.tags for result in results[::2])  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_a_deadline_ends_the_work(tmp_path: Path) -> None:
    """A video that hangs costs until the deadline, and its worker."""
    async with running(tmp_path / "store") as engine:
        with (
            endless_file(tmp_path / "endless.mp4") as endless,
            pytest.raises(DeadlineExceededError),
        ):
            await engine.tagger.classify(endless, labels=LABELS, deadline=time.monotonic() + 0.3)
        assert engine.slots.in_use == 0


@pytest.mark.anyio
async def test_redis_killed_in_the_middle_of_a_request(
    tmp_path: Path, video: Path, redis_server: RedisServer
) -> None:
    """The answer is the same; the cache says that it works without Redis."""
    many = [LabelQuery((f"label {number}",)) for number in range(900)]
    async with running(tmp_path, redis_url=redis_server.url) as engine:
        running_request = asyncio.create_task(engine.tagger.classify(video, labels=many))
        await asyncio.sleep(0.01)
        redis_server.kill()
        answer = await running_request
        again = await engine.tagger.classify(video, labels=many)
        assert [tag.label for tag in answer.tags] == [tag.label for tag in again.tags]


_SERVICE = """
import asyncio, pathlib, sys, psutil
from tests.service.engine import LABELS, running
async def main():
    async with running(pathlib.Path(sys.argv[1])) as engine:
        await engine.tagger.classify(pathlib.Path(sys.argv[2]), labels=LABELS)
        print(*(child.pid for child in psutil.Process().children()), flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


def test_killing_the_service_leaves_nothing(tmp_path: Path, video: Path) -> None:
    """kill -9: no process, no shared memory."""
    before = set(Path("/dev/shm").iterdir())  # noqa: S108 - looked at, not written
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _SERVICE, str(tmp_path / "store"), str(video)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) >= 3  # the encoder, two decoders, and spares of theirs
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for pid in pids:
        wait_gone(pid)
    names = {path.name for path in set(Path("/dev/shm").iterdir()) - before}  # noqa: S108
    assert not [name for name in names if "vtag" in name or name.startswith("psm_")]
