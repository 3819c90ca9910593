"""The disk of the spool: full, read-only; uploads are refused, tagging of what fits goes on."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import state_folder
from tests.faults.conftest import START_SECONDS
from tests.faults.load import tag, until
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

pytestmark = pytest.mark.timeout(400)

_DISK_BYTES = 4 * 1024 * 1024


@dataclass
class Disk:
    """A service whose spool is on a small disk of its own."""

    service: RunningService
    folder: Path
    film: bytes


@pytest.fixture(scope="module")
def disk(film_path: Path, postgres_cluster: str) -> Iterator[Disk]:
    """A tmpfs of a few MiB; skipped where nobody may mount one."""
    with state_folder() as state:
        root = state / "store"
        publish(root)
        small = state / "data" / "spool"
        small.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(small)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the right to mount a small tmpfs")
        try:
            settings = {
                "VTAG_MODEL_STORE": str(root),
                "VTAG_DATABASE_URL": postgres_cluster,
                "VTAG_DECODE_WORKERS": "1",
                "VTAG_ENCODER_THREADS": "1",
                "VTAG_SPOOL_RESERVE_BYTES": "0",
            }
            with running_service(
                state, environment=settings, start_seconds=START_SECONDS
            ) as service:
                yield Disk(service, small, film_path.read_bytes())
        finally:
            subprocess.run(["umount", "--lazy", str(small)], check=True)


def _require_full(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (507, "spool_full")
    assert answer.headers["retry-after"]
    assert answer.json()["retryable"] is True


def test_an_upload_that_does_not_fit_is_refused_and_removed(disk: Disk) -> None:
    """ENOSPC in the middle of a body: 507, the room is given back, what fits is tagged."""
    large = b"\0" * (2 * _DISK_BYTES)
    for _ in range(3):
        _require_full(tag(disk.service.url, large))
        assert list(disk.folder.iterdir()) == []
        assert tag(disk.service.url, disk.film).status_code == 200


def test_a_disk_that_others_filled_is_told_and_passes(disk: Disk) -> None:
    """Nothing can be received, everything else goes on; when there is room, so do uploads."""
    hog = disk.folder / "hog"
    with hog.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:  # to the last page
            stream.write(b"\0" * 4096)
    assert shutil.disk_usage(disk.folder).free == 0
    try:
        _require_full(tag(disk.service.url, disk.film))
        assert httpx.get(f"{disk.service.url}/lambda", timeout=30).status_code == 200
        ready = httpx.get(f"{disk.service.url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["components"]["spool"]) == (200, "degraded")
        assert httpx.post(
            f"{disk.service.url}/embeddings", json={"input": "a dog"}, timeout=60
        ).is_success
    finally:
        hog.unlink()
    until(lambda: tag(disk.service.url, disk.film).status_code == 200)


def test_a_read_only_disk_is_told_and_passes(disk: Disk) -> None:
    """As file systems become when the device below them fails."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
    try:
        _require_full(tag(disk.service.url, disk.film))
        assert httpx.get(f"{disk.service.url}/healthz", timeout=30).status_code == 200
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk.folder)], check=True)
    until(lambda: tag(disk.service.url, disk.film).status_code == 200)
