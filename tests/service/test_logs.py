"""Logs: one JSON object or one short line per event."""

import json
import logging
import sys

from service.logs import JsonFormatter, TextFormatter, request_id_var


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
