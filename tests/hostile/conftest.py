"""A good film that the hostile tests damage or stand beside their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.answers import STAMPS
from tests.service.videoclip.films import write_film


@pytest.fixture(scope="session")
def film_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good film of 60 pictures, 2.4 s, its index at the front."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    options = {"movflags": "faststart"}
    return write_film(path, pts=STAMPS, container_options=options).read_bytes()


@pytest.fixture
def film(tmp_path: Path, film_bytes: bytes) -> Path:
    """A copy of the good film in an otherwise empty folder."""
    path = tmp_path / "film.mp4"
    path.write_bytes(film_bytes)
    return path
