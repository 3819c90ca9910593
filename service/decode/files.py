"""Files on their way to a decode child: opened here, handed over as descriptors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.decode.answers import decode_failed
from service.errors import exhausted

_log = logging.getLogger(__name__)


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, int]]:
    """The file at `path`, open for reading, and its size in bytes.

    Raises:
        VideoError: `decode_failed`: it cannot be read; the log has the reason.
        ApiError: ``saturated``: this process may open no more files; no fault of the video.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        _log.warning("a video to be decoded cannot be opened: %s", error.strerror)
        raise exhausted(error) or decode_failed() from None
    try:
        yield file, os.fstat(file).st_size
    finally:
        os.close(file)
