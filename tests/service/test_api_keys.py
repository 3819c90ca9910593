"""Keys: known by their digest only, named, bounded in time."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service import api_keys
from service.api_keys import KeyFile, new_key, presented, read_keys

_DIGEST = hashlib.sha256(b"k").hexdigest()


def _file(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_new_key_is_known_by_the_lines_that_come_with_it(tmp_path: Path) -> None:
    """The file holds no key; the key finds its name and rights, another finds nothing."""
    one, lines = new_key("camera-1")
    other, admin_lines = new_key("ops", admin=True)
    assert one not in lines
    keyring = read_keys(_file(tmp_path, f"{lines}\nconcurrent = 3\n\n{admin_lines}\n"))
    camera, ops = keyring.find(one), keyring.find(other)
    assert camera is not None
    assert (camera.name, camera.admin, camera.quota.concurrent) == ("camera-1", False, 3)
    assert ops is not None
    assert (ops.name, ops.admin, ops.quota.requests_per_minute) == ("ops", True, None)
    for wrong in ("", one[:-1], one + "x", one.upper(), "é" * 1000, lines):
        assert keyring.find(wrong) is None


def test_an_expired_key_is_nobodys(tmp_path: Path) -> None:
    """From its moment on; before it the key is good."""
    text = f'[keys.old]\nsha256 = "{_DIGEST}"\nexpires = 2020-01-01T00:00:00Z\n'
    assert read_keys(_file(tmp_path, text)).find("k") is None
    text = text.replace("2020", "2999")
    assert read_keys(_file(tmp_path, text)).find("k") is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "keys: Field required"),
        ("[keys]", "at least 1 item"),
        ("keys = 1", "keys"),
        ("[keys.a]", "keys.a.sha256: Field required"),
        ('[keys.a]\nsha256 = "abc"', "keys.a.sha256"),
        (f'[keys.a]\nsha256 = "{_DIGEST}"\nadmn = true', "keys.a.admn"),
        (f'[keys.a]\nsha256 = "{_DIGEST}"\nconcurrent = 0', "keys.a.concurrent"),
        (f'[keys.a]\nsha256 = "{_DIGEST}"\nadmin = "yes"', "keys.a.admin"),
        (f'[keys.a]\nsha256 = "{_DIGEST}"\nexpires = 2020-01-01T00:00:00', "keys.a.expires"),
        (f'[keys."a b"]\nsha256 = "{_DIGEST}"', "keys.a b"),
        (f'[keys.a]\nsha256 = "{_DIGEST}"\n[keys.b]\nsha256 = "{_DIGEST}"', "same key"),
        ("[keys.a", "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """A misspelt quota must not become no quota: one line that says where, and no digest in it."""
    with pytest.raises(ValueError, match=r"is not TOML|cannot be used") as caught:
        read_keys(_file(tmp_path, text))
    assert reason in str(caught.value)
    assert _DIGEST not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """No file is not the same as no keys."""
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-a", "a" * 65, "[x]"])
def test_a_name_that_would_break_the_file_or_the_log_is_refused(name: str) -> None:
    """Names go into TOML, metrics of the operator and every line of the log."""
    with pytest.raises(ValueError, match="a name has"):
        new_key(name)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"x-api-key", b"abc")], "abc"),
        ([(b"x-api-key", b"abc"), (b"authorization", b"Bearer abc")], "abc"),
        ([(b"x-api-key", b"abc"), (b"authorization", b"Bearer def")], None),
        ([(b"x-api-key", b"abc"), (b"authorization", b"Basic YTpi")], None),
        ([(b"x-api-key", b"abc"), (b"x-api-key", b"def")], None),
        ([(b"authorization", b"Basic YTpi")], ""),
    ],
)
def test_one_key_is_read_and_two_are_none(
    headers: list[tuple[bytes, bytes]], key: str | None
) -> None:
    """What a proxy and the service could read differently is not read at all."""
    assert presented(headers) == key


@asynccontextmanager
async def _watched(path: Path) -> AsyncIterator[KeyFile]:
    file = KeyFile(path)
    file.start()
    try:
        yield file
    finally:
        await file.stop()
        await file.stop()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


@pytest.mark.anyio
async def test_keys_come_and_go_while_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is replaced, or written in place, counts soon; one line says so each time."""
    monkeypatch.setattr(api_keys, "_LOOK_SECONDS", 0.02)
    caplog.set_level("INFO", logger="vtag")
    (one, one_lines), (two, two_lines) = new_key("one"), new_key("two")
    path = _file(tmp_path, one_lines)
    async with _watched(path) as file:
        assert (file.find(one) is not None, file.find(two)) == (True, None)
        _replace(path, f"{one_lines}\nconcurrent = 2\n{two_lines}\n")
        await _until(lambda: file.find(two) is not None)
        caller = file.find(one)
        assert caller is not None
        assert caller.quota.concurrent == 2
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        path.write_text(two_lines)  # in place: it may be read half written, and is read again
        await _until(lambda: file.find(one) is None)
        assert file.find(two) is not None
    assert not any(key in caplog.text for key in (one, two))


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["", "[keys.a", f'[keys.a]\nsha256 = "{_DIGEST}"\nadmn = 1'])
async def test_a_file_that_breaks_keeps_the_keys_from_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    """One line that names setting, file and reason; told once; a good file counts again."""
    monkeypatch.setattr(api_keys, "_LOOK_SECONDS", 0.02)
    (one, one_lines), (two, two_lines) = new_key("one"), new_key("two")
    path = _file(tmp_path, one_lines)
    async with _watched(path) as file:
        _replace(path, broken)
        await _until(lambda: bool(caplog.records))
        await asyncio.sleep(0.2)  # some looks more
        [line] = [record.getMessage() for record in caplog.records]
        assert line.startswith(f"VTAG_API_KEYS_FILE: {path} ")
        assert line.endswith("; the keys from before stay")
        assert _DIGEST not in line
        assert file.find(one) is not None
        _replace(path, two_lines)
        await _until(lambda: file.find(two) is not None)
        assert file.find(one) is None
        path.unlink()
        await _until(lambda: len(caplog.records) == 2)
        assert "cannot be read" in caplog.records[-1].getMessage()
        assert file.find(two) is not None


@pytest.mark.anyio
async def test_a_file_is_read_at_once_when_somebody_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on SIGHUP, without waiting for the next look."""
    monkeypatch.setattr(api_keys, "_LOOK_SECONDS", 3600.0)
    (_, one_lines), (two, two_lines) = new_key("one"), new_key("two")
    path = _file(tmp_path, one_lines)
    async with _watched(path) as file:
        _replace(path, two_lines)
        assert file.find(two) is None
        file.look_now()
        await _until(lambda: file.find(two) is not None)
