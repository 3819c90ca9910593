"""Children start clean, answer in frames, and end for certain."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.channel import FRAME
from service.child import Child, ChildDiedError
from tests.service.processes import wait_gone

MODULE = "tests.service.scripted_worker"


async def start(folder: Path, *, descriptors: tuple[int, ...] = ()) -> Child:
    """A scripted child."""
    return await Child.start(
        MODULE,
        name="scripted",
        environment={"KEPT": "yes"},
        folder=folder,
        descriptors=descriptors,
        max_payload_bytes=1 << 20,
    )


@pytest.mark.anyio
async def test_messages_carry_json_and_bytes_both_ways(tmp_path: Path) -> None:
    """Text of any script and a payload larger than a socket buffer come back as sent."""
    child = await start(tmp_path)
    payload = os.urandom(1 << 20)
    answer, output = await child.call({"order": "echo", "text": "λ ☃ \x00"}, payload=payload)
    assert (answer["said"], output) == ("λ ☃ \x00", payload)
    assert await child.stop(grace_seconds=5) == 0


@pytest.mark.anyio
async def test_answers_go_to_the_call_they_belong_to(tmp_path: Path) -> None:
    """Many calls at once do not mix."""
    child = await start(tmp_path)
    answers = await asyncio.gather(
        *(child.call({"order": "echo", "text": str(n)}) for n in range(50))
    )
    assert [answer["said"] for answer, _ in answers] == [str(n) for n in range(50)]
    await child.kill()


@pytest.mark.anyio
async def test_a_child_inherits_nothing_but_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No environment, no listening socket, no terminal signal; its own folder and group."""
    monkeypatch.setenv("VTAG_DATABASE_URL", "postgresql://secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        descriptor = os.memfd_create("given")
        child = await start(tmp_path, descriptors=(descriptor,))
        seen, _ = await child.call({"order": "describe"})
    assert set(seen["environment"]) <= {"KEPT", "PYTHONPATH", "PYTHONFAULTHANDLER", "LC_CTYPE"}
    assert seen["folder"] == str(tmp_path)
    assert seen["group"] == child.pid
    assert seen["interrupt_ignored"]
    links = seen["descriptors"]
    assert sum(link.startswith("socket:") for link in links.values()) <= 1 + _stderr_is_socket()
    assert links[str(descriptor)].startswith("/memfd:given")
    os.close(descriptor)
    await child.kill()


def _stderr_is_socket() -> int:
    return int(str(Path("/proc/self/fd/2").readlink()).startswith("socket:"))


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_dying_child_fails_its_calls_and_tells_the_signal(
    tmp_path: Path, number: int
) -> None:
    """All calls in flight raise, later ones too, and the status names the signal."""
    child = await start(tmp_path)
    calls = await asyncio.gather(
        child.call({"order": "die", "signal": int(number)}),
        child.call({"order": "echo", "text": "too late"}),
        return_exceptions=True,
    )
    assert all(isinstance(result, ChildDiedError) for result in calls)
    assert await child.wait() == -number
    with pytest.raises(ChildDiedError):
        await child.call({"order": "echo", "text": "?"})
    assert not child.alive


@pytest.mark.anyio
@pytest.mark.parametrize(
    "garbage",
    [
        FRAME.pack(2**32 - 1, 0),
        FRAME.pack(2, 2**63) + b"{}",
        b"\x00" * 3,
    ],
)
async def test_a_child_that_breaks_the_protocol_cannot_hurt(tmp_path: Path, garbage: bytes) -> None:
    """Absurd sizes end the child; half a frame leaves the caller's time limit to decide."""
    child = await start(tmp_path)
    with pytest.raises((ChildDiedError, TimeoutError)):
        async with asyncio.timeout(1):
            await child.call({"order": "garbage", "text": garbage.decode("latin-1")})
    await child.kill()
    assert not psutil.pid_exists(child.pid)


@pytest.mark.anyio
async def test_nonsense_that_is_framed_is_ignored(tmp_path: Path) -> None:
    """Answers to nobody, broken JSON and JSON of another kind leave the child usable."""
    child = await start(tmp_path)
    texts = [b'{"id": 99}', b"not json", b"[1]", b"[" * 100_000]
    junk = b"".join(FRAME.pack(len(text), 0) + text for text in texts)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await child.call({"order": "garbage", "text": junk.decode("latin-1")})
    assert child.alive
    await child.kill()


@pytest.mark.anyio
async def test_kill_ends_a_stopped_child_and_survives_cancellation(tmp_path: Path) -> None:
    """When `kill` returns or is cancelled, the process is gone and reaped."""
    child = await start(tmp_path)
    os.kill(child.pid, signal.SIGSTOP)
    killing = asyncio.create_task(child.kill())
    await asyncio.sleep(0)
    killing.cancel()
    await asyncio.gather(killing, return_exceptions=True)
    assert not psutil.pid_exists(child.pid)


@pytest.mark.anyio
async def test_stop_lets_an_idle_child_leave_and_kills_a_busy_one(tmp_path: Path) -> None:
    """Status 0 when it left by itself, SIGKILL's after the grace."""
    idle, busy = await start(tmp_path), await start(tmp_path)
    call = asyncio.create_task(busy.call({"order": "hang"}))
    await asyncio.sleep(0.3)
    assert await idle.stop(grace_seconds=60) == 0
    assert await busy.stop(grace_seconds=0.1) == -signal.SIGKILL
    with pytest.raises(ChildDiedError):
        await call


@pytest.mark.anyio
async def test_processor_time_is_limited_per_task_and_not_per_life(tmp_path: Path) -> None:
    """A worker that used up seconds before may use its seconds again; then SIGXCPU ends it."""
    child = await start(tmp_path)
    with pytest.raises(ChildDiedError):
        await child.call({"order": "spin", "seconds": 0.2})
    assert await child.wait() == -signal.SIGXCPU


_PARENT = """
import asyncio, pathlib, sys
from service.child import Child
async def main():
    children = [
        await Child.start("tests.service.scripted_worker", name="x", environment={},
                          folder=pathlib.Path("/"), max_payload_bytes=0)
        for _ in range(2)
    ]
    await asyncio.gather(*(child.call({"order": "echo", "text": ""}) for child in children))
    busy = asyncio.create_task(children[1].call({"order": "spin", "seconds": 100}))
    await asyncio.sleep(0.2)
    print(*(child.pid for child in children), flush=True)
    await busy
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_their_parent(number: int) -> None:
    """An idle and a busy child are gone soon after their parent was killed."""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(number)
        parent.wait()
        for pid in pids:
            wait_gone(pid)
