"""The sandbox of decode children: what it refuses, tried from within one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.decode import landlock
from service.decode.pool import DecodePool
from service.decode.sandbox import Protection, SandboxError
from service.frames import FrameSlots
from service.videoclip.decoding import Limits

_WITHIN = """
import asyncio, ctypes, errno, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from service.decode.sandbox import enter, limit_resources

mode, victim, secret = sys.argv[1], int(sys.argv[2]), sys.argv[3]
opened = os.open(secret, os.O_RDONLY)
limit_resources(memory_bytes=1 << 30)
protection = enter(mode)

def fails(work):
    try:
        result = work()
    except OSError as error:
        return errno.errorcode[error.errno]
    except RuntimeError as error:  # "can't start new thread"
        return str(error)
    return f"done: {result}"

tries = {
    "internet": lambda: socket.socket(socket.AF_INET),
    "internet 6": lambda: socket.socket(socket.AF_INET6),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "pair": socket.socketpair,
    "process": lambda: subprocess.run(["/bin/true"]),
    "fork": os.fork,
    "program": lambda: os.execv("/bin/true", ["true"]),
    "thread": lambda: threading.Thread(target=int).start(),
    "kill": lambda: os.kill(victim, signal.SIGKILL),
    "limits of another": lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE, (9, 9)),
    "read": lambda: os.open(secret, os.O_RDONLY),
    "passwords": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "environment of another": lambda: os.open(f"/proc/{victim}/environ", os.O_RDONLY),
    "list": lambda: os.listdir("/"),
    "create": lambda: os.open(secret + ".new", os.O_WRONLY | os.O_CREAT),
    "truncate": lambda: os.open(secret, os.O_WRONLY | os.O_TRUNC),
    "remove": lambda: os.unlink(secret),
    "rename": lambda: os.rename(secret, secret + ".new"),
    "folder": lambda: os.mkdir(secret + ".folder"),
    "chmod": lambda: os.chmod(secret, 0o777),
}
names = sys.argv[4:] or tries
found = {name: fails(tries[name]) for name in names}
found["what was open"] = os.pread(opened, 6, 0).decode()
import email.mime.text  # of Python's library: may be read
print(json.dumps({"protection": [protection.system_calls, protection.files], "found": found}))
"""


def within(mode: str, secret: Path, *names: str) -> tuple[list[bool], dict[str, Any]]:
    """What a process in the sandbox can do to this one and to `secret`: everything, or `names`."""
    result = subprocess.run(
        [sys.executable, "-c", _WITHIN, mode, str(os.getpid()), str(secret), *names],
        capture_output=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    answer = json.loads(result.stdout)
    return answer["protection"], answer["found"]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of somebody else."""
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


def test_nothing_but_the_open_file_is_within_reach(secret: Path) -> None:
    """No socket, process, signal or foreign file; the video that was passed in is read."""
    (system_calls, files), found = within("auto", secret)
    if not (system_calls and files):
        pytest.skip("this kernel has no seccomp or no Landlock")
    assert found.pop("what was open") == "secret"
    reached = {name: outcome for name, outcome in found.items() if outcome.startswith("done")}
    assert reached == {}
    refusals = {"ENOSYS", "EACCES", "EPERM", "can't start new thread"}
    assert set(found.values()) <= refusals
    assert secret.read_text() == "secret"
    assert list(secret.parent.iterdir()) == [secret]


def test_switched_off_it_says_so(secret: Path) -> None:
    """`off` leaves the limits of resources, and does not pretend to more."""
    protection, found = within("off", secret, "unix", "read", "create")
    assert protection == [False, False]
    assert found["unix"].startswith("done")
    assert found["read"].startswith("done")


def test_capabilities_are_given_up() -> None:
    """Also those of root: none is left, none can be had again."""
    status = subprocess.run(
        [
            sys.executable,
            "-c",
            "from service.decode.sandbox import drop_privileges; drop_privileges();"
            "print(open('/proc/self/status').read())",
        ],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert {int(sets[name], 16) for name in ("CapPrm", "CapEff", "CapInh")} == {0}
    if os.geteuid() == 0:
        assert int(sets["CapBnd"], 16) == 0


@pytest.mark.anyio
async def test_the_pool_tells_what_holds_its_workers() -> None:
    """As tried in the children; a pool that does not run claims nothing."""
    slots = FrameSlots(1, slot_bytes=1 << 16)
    pool = DecodePool(slots, workers=1, limits=Limits(), timeout_seconds=30)
    assert not pool.protection.complete
    await pool.start()
    try:
        assert pool.protection.files == (landlock.version() > 0)
        status = Path(f"/proc/{pool.pids[0]}/status").read_text()
        assert ("Seccomp:\t2" in status) == pool.protection.system_calls
        assert "NoNewPrivs:\t1" in status
    finally:
        await pool.stop()
        slots.close()


@pytest.mark.anyio
async def test_a_required_sandbox_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line, and no process is left."""
    incomplete = Protection(system_calls=True, files=False, reasons=("the kernel has none",))
    monkeypatch.setattr("service.decode.member.Protection", lambda **_: incomplete)
    slots = FrameSlots(1, slot_bytes=1 << 16)
    pool = DecodePool(slots, workers=1, limits=Limits(), timeout_seconds=30, sandbox="require")
    with pytest.raises(SandboxError) as caught:
        await pool.start()
    assert str(caught.value) == (
        "VTAG_DECODE_SANDBOX=require: this host does not allow the sandbox of decode workers: "
        "the kernel has none"
    )
    assert pool.pids == ()
    slots.close()
