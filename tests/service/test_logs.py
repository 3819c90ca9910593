"""Logs: one JSON object or one short line per event."""

import json
import logging
import subprocess
import sys

import pytest

from service.logs import JsonFormatter, TextFormatter, redacted, request_id_var


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("vtag", logging.WARNING, "f", 1, message, (), None)
    vars(record).update(extra)
    return record


def test_json_lines_carry_extras_request_id_and_exceptions() -> None:
    """Newlines in messages do not make new lines."""
    token = request_id_var.set("req_1")
    try:
        line = JsonFormatter().format(_record("two\nlines", status=3))
    finally:
        request_id_var.reset(token)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["message"], entry["status"], entry["request_id"]) == ("two\nlines", 3, "req_1")
    assert entry["level"] == "warning"
    assert entry["time"].endswith("+00:00")
    try:
        raise ValueError("inside")
    except ValueError:
        record = _record("failed")
        record.exc_info = sys.exc_info()
    assert "ValueError: inside" in json.loads(JsonFormatter().format(record))["exception"]


def test_text_lines_end_with_the_extras() -> None:
    """Readable in a terminal."""
    assert TextFormatter().format(_record("ready", port=8000)).endswith("WARNING ready  port=8000")
    line = TextFormatter().format(_record("done", stages_ms={"wait": 0.1, "decode": 2.5}))
    assert line.endswith("WARNING done  stages_ms=wait:0.1,decode:2.5")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("GET https://a.example/b.mp4?X-Signature=s3cret&e=1 failed",
         "GET https://a.example/b.mp4?[...] failed"),
        ("s3://bucket/k#s3cret", "s3://bucket/k?[...]"),
        ("postgresql://me:s3cret@db:5432/x", "postgresql://[...]@db:5432/x"),
        ('{"url": "redis://:s3cret@r/0?password=s3cret"}', '{"url": "redis://[...]@r/0?[...]"}'),
        ("Authorization: Bearer s3cret.token", "Authorization: Bearer [...]"),
        ("key vtag_" + "s3cret_" * 7, "key vtag_[...]"),
        ("key whsec_" + "s3cret/+" * 5 + "=", "key whsec_[...]"),
        ("is it on? yes: vtag_requests_total", "is it on? yes: vtag_requests_total"),
    ],
)  # fmt: skip
def test_urls_and_keys_lose_what_is_secret(line: str, left: str) -> None:
    """Queries, fragments, credentials and keys; the rest of the line stays."""
    assert redacted(line) == left
    for formatter in (JsonFormatter(), TextFormatter()):
        assert "s3cret" not in formatter.format(_record(line, url=line))


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_failed_in_a_request_is_told_without_what_it_says(
    formatter: logging.Formatter,
) -> None:
    """Kinds and places of the whole chain: libraries repeat labels and URLs in their messages."""
    token = request_id_var.set("req_1")
    try:
        try:
            raise KeyError("private".upper())
        except KeyError as error:
            raise OSError(28, "private".upper()) from error
    except OSError:
        record = _record("failed")
        record.exc_info = sys.exc_info()
        line = formatter.format(record)
    finally:
        request_id_var.reset(token)
    assert "PRIVATE" not in line
    for part in ("KeyError", "OSError (errno 28)", "which led to", "test_logs.py"):
        assert part in line


_CHILD = """
import logging
from service.logs import configure_child
configure_child({choice!r})
logging.getLogger("service.encode.worker").warning("slow", extra={{"device": "cpu"}})
logging.getLogger("httpx").info("HTTP Request: GET https://a/?s3cret")
logging.getLogger("httpx").warning("careful")
"""


def _said(choice: str) -> list[str]:
    code = _CHILD.format(choice=choice)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stderr.splitlines()


def test_children_speak_as_their_parent_and_libraries_only_warn() -> None:
    """One form for the whole stream, whichever process wrote a line."""
    slow, careful = map(json.loads, _said("info:json"))
    assert (slow["message"], slow["device"], slow["logger"]) == (
        "slow", "cpu", "service.encode.worker",
    )  # fmt: skip
    assert careful["message"] == "careful"
    assert [line[9:] for line in _said("info:text")] == [
        "WARNING slow  device=cpu", "WARNING careful",
    ]  # fmt: skip
