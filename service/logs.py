"""Logs: one line per event, as JSON for machines or as text for a terminal.

Nothing that a client sends in confidence gets into them: queries and credentials of URLs and all
keys are taken out of every line; what an exception says is left out while a request is worked on,
because libraries repeat what they were given; libraries of others speak from warnings on.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)
facts_var: ContextVar[dict[str, str | float] | None] = ContextVar("facts", default=None)
"""What the line of a request says beside its time; tasks that work for it share one."""

_STANDARD: Final = set(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_OURS: Final = {"vtag", "service", "uvicorn"}
_GONE: Final = "[...]"
_REDACTIONS: Final = (
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/\"'<>@\\]*@"), rf"\1{_GONE}@"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s\"'<>?#\\]*)[?#][^\s\"'<>\\]*"), rf"\1?{_GONE}"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',\\]+"), rf"\1{_GONE}"),
    (re.compile(r"\b(whsec_|vtag_)[A-Za-z0-9+/=_-]{24,}"), rf"\1{_GONE}"),
)

_choice = ""


def note(facts: Mapping[str, str | float]) -> None:
    """Have the line of the request, if this is done for one, say these things, too."""
    known = facts_var.get()
    if known is not None:
        known.update(facts)


def redacted(line: str) -> str:
    """Return the line without queries and credentials of URLs, and without keys."""
    for pattern, rest in _REDACTIONS:
        line = pattern.sub(rest, line)
    return line


class _Formatter(logging.Formatter):
    """What both forms have in common."""

    def formatException(  # noqa: N802 - named by the standard library
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Return the trace; of what failed in a request, without what the exceptions say."""
        if request_id_var.get() is None or ei[1] is None:
            return super().formatException(ei)
        return _without_messages(ei[1])


class JsonFormatter(_Formatter):
    """One JSON object per line; extras of the call become fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := request_id_var.get()) is not None:
            entry["request_id"] = request_id
        for name, value in vars(record).items():
            if name not in _STANDARD:
                entry[name] = value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return redacted(json.dumps(entry, default=str))


class TextFormatter(_Formatter):
    """Short lines for people; extras follow the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = super().format(record)
        extras = [f"{k}={_short(v)}" for k, v in vars(record).items() if k not in _STANDARD]
        if (request_id := request_id_var.get()) is not None:
            extras.append(f"request_id={request_id}")
        head, *trace = line.split("\n", 1)
        return redacted("\n".join(["  ".join(filter(None, [head, " ".join(extras)])), *trace]))


def configure(level: str, *, style: Literal["auto", "text", "json"]) -> None:
    """Send all logs to standard error; standard output belongs to the launcher."""
    global _choice
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    _choice = f"{level}:{'text' if text else 'json'}"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_is_for_us)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Requests are logged once, by the envelope, with their identifiers.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))


def to_child() -> str:
    """Return what makes a child log as this process does, for `configure_child`."""
    return _choice


def configure_child(choice: str) -> None:
    """Log as the parent does; nothing is changed if it was not configured itself."""
    level, _, style = choice.partition(":")
    if level:
        configure(level, style="text" if style == "text" else "json")


def _is_for_us(record: logging.LogRecord) -> bool:
    # HTTP clients, for one, log every URL that they ask for, with its signature.
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


def _short(value: object) -> object:
    """Stage times on one line."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{each}" for name, each in value.items())
    return value


def _without_messages(error: BaseException) -> str:
    """Where an exception and those behind it were raised, and their kinds."""
    parts: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = "".join(traceback.format_tb(cause.__traceback__))
        number = f" (errno {cause.errno})" if isinstance(cause, OSError) and cause.errno else ""
        parts.append(f"Traceback (most recent call last):\n{frames}{type(cause).__name__}{number}")
        behind = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or behind
    return "\n\nwhich led to:\n\n".join(reversed(parts))
