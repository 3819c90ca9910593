"""API keys: who may ask, how often, and until when. Only digests of keys are kept."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

_log = logging.getLogger("vtag")

_LOOK_SECONDS: Final = 2.0
_KEY_BYTES: Final = 32
_PREFIX: Final = "vtag_"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_CHARACTERS: Final = 512

Name = Annotated[str, StringConstraints(pattern=rf"^{_NAME.pattern}$")]


class Quota(BaseModel):
    """How much one caller may ask for; None is without bound."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = None


class _Entry(Quota):
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    admin: bool = False
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    keys: Annotated[dict[Name, _Entry], Field(min_length=1)]


@dataclass(frozen=True)
class Caller:
    """Who made a request.

    Attributes:
        name: of the key, as the operator wrote it; for logs and counts per caller.
        admin: may change what is served.
        quota: how much it may ask for.
    """

    name: str
    admin: bool
    quota: Quota


OPEN: Final = Caller("anonymous", admin=True, quota=Quota())
"""Every caller of a service without keys."""


class Keyring:
    """The keys of a service."""

    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._known = [
            (bytes.fromhex(entry.sha256), entry, Caller(name, entry.admin, _quota(entry)))
            for name, entry in entries.items()
        ]

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> Caller | None:
        """Return whose key this is, None if it is nobody's or has expired.

        Every known digest is compared, each in constant time. Keys are 256 random bits, so that
        a plain SHA-256 of them cannot be searched: no slow password hash is needed.
        """
        digest = hashlib.sha256(key[:_MOST_CHARACTERS].encode("utf-8", "replace")).digest()
        found: Caller | None = None
        for known, entry, caller in self._known:
            expired = entry.expires is not None and entry.expires <= datetime.now(UTC)
            if hmac.compare_digest(known, digest) and not expired:
                found = caller
        return found


class KeyFile:
    """The keys of a file, read again when it changes: keys come and go without a restart.

    A file that cannot be used is one line in the log, and the keys of the last good one stay: a
    typing error must not lock everybody out, nor let anybody in. It is looked at, not watched by
    the kernel: mounted secrets are replaced by a link to another folder.

    Args:
        path: of the file.

    Raises:
        ValueError: as `read_keys`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)  # before it is read: what changes meanwhile is seen later
        self._keyring = read_keys(path)
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def find(self, key: str) -> Caller | None:
        """Return whose key this is now; see `Keyring.find`."""
        return self._keyring.find(key)

    @property
    def are_several(self) -> bool:
        """Whether there is more than one key: somebody to share with."""
        return len(self._keyring) > 1

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="key-watch")

    async def stop(self) -> None:
        """End it; safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def look_now(self) -> None:
        """Read the file at once, changed or not: somebody says that it is time."""
        self._asked.set()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _LOOK_SECONDS)
            always = self._asked.is_set()
            self._asked.clear()
            await self._look(always=always)

    async def _look(self, *, always: bool) -> None:
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._stamp and not always:
            return
        self._stamp = stamp
        try:
            self._keyring = await asyncio.to_thread(read_keys, self._path)
        except ValueError as error:
            _log.error("VTAG_API_KEYS_FILE: %s %s; the keys from before stay", self._path, error)
        else:
            _log.info("VTAG_API_KEYS_FILE: read again, %d keys", len(self._keyring))


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever a file is written or replaced; empty: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _quota(entry: _Entry) -> Quota:
    return Quota(requests_per_minute=entry.requests_per_minute, concurrent=entry.concurrent)


def read_keys(path: Path) -> Keyring:
    """Read the file of `VTAG_API_KEYS_FILE`: TOML, one table ``[keys.NAME]`` for each key.

    Raises:
        ValueError: with one line that says what is wrong; it holds nothing of a key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"cannot be used: {_mistakes(error)}") from None
    digests = [entry.sha256 for entry in file.keys.values()]
    if len(set(digests)) < len(digests):
        raise ValueError("cannot be used: two names have the same key")
    return Keyring(file.keys)


def _mistakes(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:5])


def new_key(name: str, *, admin: bool = False) -> tuple[str, str]:
    """Return a new key, and the lines of the file that make it known.

    Raises:
        ValueError: the name cannot be that of a key.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError("a name has letters, digits, and . _ - between them, 64 at most")
    key = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    digest = hashlib.sha256(key.encode()).hexdigest()
    lines = [f'[keys."{name}"]', f'sha256 = "{digest}"', *(["admin = true"] if admin else [])]
    return key, "\n".join(lines)


def presented(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the key in ``Authorization: Bearer`` or ``X-API-Key``; None: none, or several."""
    found: set[str] = set()
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.add(text)
        elif name == b"authorization":
            scheme, _, token = text.partition(" ")
            # Another scheme is a key that nobody has: it must not stand beside a good one.
            found.add(token.strip() if scheme.lower() == "bearer" else "")
    return found.pop() if len(found) == 1 else None
