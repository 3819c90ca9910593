"""The launcher: one line for every mistake of the operator, and commands that can be copied."""

import asyncio
import os
import shlex
import socket
from pathlib import Path

import pytest

from service.__main__ import _examples, _listen, main
from service.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VTAG_") or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both print and leave with 0."""
    assert main(["--help"]) == 0
    described = capsys.readouterr().out
    assert 0 < described.index("VTAG_PORT") < described.index("VTAG_MEDIA_URL")
    assert "VTAG_DATA_DIR" in described
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vtag ")


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The service has settings, not arguments."""
    assert main(["--port=9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_key_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says how it is given."""
    assert main(["key"]) == 2
    assert "python -m service key NAME" in capsys.readouterr().err


def test_mistakes_in_settings_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, one each, exit code 2."""
    monkeypatch.setenv("VTAG_PORT", "x")
    monkeypatch.setenv("VTAG_MAX_LABELS", "-1")
    assert main([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["VTAG_PORT", "VTAG_MAX_LABELS"]


@pytest.mark.parametrize(
    ("host", "said"), [("256.1.1.1", "cannot listen"), ("192.0.2.1", "cannot listen")]
)
def test_an_address_that_is_not_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, said: str
) -> None:
    """No name, or another machine's address: the setting is named."""
    monkeypatch.setenv("VTAG_HOST", host)
    monkeypatch.setenv("VTAG_ALLOW_OPEN", "true")
    assert main([]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert "VTAG_HOST" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_small_answers_are_sent_at_once(host: str) -> None:
    """Connections have TCP_NODELAY: no part of an answer waits for an acknowledgement (40 ms)."""
    found: list[int] = []

    async def serve() -> None:
        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = _listen(Settings(host=host, port=0))
        address = listener.getsockname()[:2]
        async with await asyncio.start_server(connected, sock=listener):
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            writer.close()

    asyncio.run(serve())
    assert found == [1]


def test_the_examples_can_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With sample videos the commands name files that are there; without, a note says so."""
    monkeypatch.chdir(tmp_path)
    assert "YOUR_VIDEO.mp4" in _examples("http://127.0.0.1:8000")
    samples = tmp_path / "deploy" / "samples"
    samples.mkdir(parents=True)
    for name in ("cross-growing", "star-moving-left", "wheel-spinning-clockwise"):
        (samples / f"{name}.mp4").write_bytes(b"")
    commands = [line for line in _examples("http://127.0.0.1:8000").splitlines() if "curl" in line]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        for word in words:
            if word.startswith("video=@"):
                assert (tmp_path / word.removeprefix("video=@")).is_file()
    assert "a star moving left" in commands[0]
    assert "YOUR_VIDEO" not in "".join(commands)
