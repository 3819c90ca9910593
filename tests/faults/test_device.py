"""A device without memory, and one that is lost: simulated under the runtime protocol."""

import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import state_folder
from tests.faults.conftest import START_SECONDS
from tests.faults.load import LABELS, tag, under_load, until
from tests.faults.reference import reference_scores
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

pytestmark = pytest.mark.timeout(400)

# While it cannot work it says so; what is computed is never wrong.
REFUSED = {(503, "encoder_unavailable"), (500, "internal_error"), (503, "saturated")}


@dataclass
class Device:
    """A service whose device fails as it is told to."""

    service: RunningService
    wish: Path
    film: bytes
    scores: Mapping[str, float]

    def fail(self, **how: Any) -> None:
        """From now on; nothing: work."""
        beside = self.wish.with_suffix(".new")
        beside.write_text(json.dumps(how))
        beside.replace(self.wish)

    def expect(self, _space: str) -> Mapping[str, float]:
        """What every answer must be."""
        return self.scores

    def metric(self, name: str) -> float:
        """The value of one series, 0 if it is not there."""
        lines = httpx.get(f"{self.service.url}/metrics", timeout=30).text.splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        return float(found[0].split()[-1]) if found else 0.0


@pytest.fixture(scope="module")
def whole_device(film_path: Path) -> Iterator[Device]:
    """A small artefact on it."""
    with tempfile.TemporaryDirectory(prefix="vtag-device-") as name, state_folder() as state:
        root, wish = Path(name) / "store", Path(name) / "wish"
        manifest = publish(root)
        folder = root / manifest.name / manifest.revision
        there = str(Path(__file__).parent / "failing_device")
        settings = {
            "VTAG_MODEL_STORE": str(root),
            "VTAG_DECODE_WORKERS": "1",
            "VTAG_ENCODER_THREADS": "1",
            "FAILING_DEVICE": str(wish),
            "PYTHONPATH": os.pathsep.join(filter(None, [there, os.environ.get("PYTHONPATH")])),
        }
        scores = reference_scores(
            folder, clip_weight=manifest.default_clip_weight, film=film_path, labels=LABELS
        )
        with running_service(state, environment=settings, start_seconds=START_SECONDS) as service:
            yield Device(service, wish, film_path.read_bytes(), scores)


@pytest.fixture
def device(whole_device: Device) -> Iterator[Device]:
    """It works before and after each test."""
    yield whole_device
    whole_device.fail()
    _works(whole_device)


def _works(device: Device) -> None:
    until(lambda: tag(device.service.url, device.film).status_code == 200, seconds=120)
    found = tag(device.service.url, device.film).json()
    assert {each["label"]: each["score"] for each in found["tags"]} == pytest.approx(
        dict(device.scores), abs=1e-4
    )
    assert httpx.get(f"{device.service.url}/readyz", timeout=30).status_code == 200


def test_batches_that_do_not_fit_are_halved(device: Device) -> None:
    """Memory for one clip at a time: requests of several clips, many at once, are all answered."""
    url = device.service.url
    many = {"sampling": json.dumps({"mode": "fps", "fps": 4, "views": 4})}
    whole = tag(url, device.film, **many)
    assert whole.status_code == 200, whole.text
    device.fail(clips=1)
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(tag(url, device.film, **many)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    expected = {each["label"]: each["score"] for each in whole.json()["tags"]}
    for answer in answers:
        found = {each["label"]: each["score"] for each in answer.json()["tags"]}
        assert found == pytest.approx(expected, abs=1e-4)


def test_texts_that_do_not_fit_are_halved(device: Device) -> None:
    """A hundred cold labels with memory for four sentences at a time."""
    device.fail(texts=4)
    labels = [f"thing number {number}" for number in range(100)]
    answer = httpx.post(
        f"{device.service.url}/embeddings", json={"input": labels, "modality": "text"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 100


def test_no_memory_at_all_is_said_and_passes(device: Device) -> None:
    """Nothing fits: every request gets a status; when there is room again, all is well."""
    with under_load(device.service.url, device.film, device.expect) as answers:
        device.fail(clips=0)
        refused = answers.refused.total()
        until(lambda: answers.refused.total() >= refused + 4)
        device.fail()
    answers.require(refusals=REFUSED)


def test_a_lost_device_ends_its_process(device: Device) -> None:
    """After some calls each call fails until there is a new process: one comes, work goes on."""
    restarts = 'vtag_worker_restarts_total{worker="encoder"}'
    before = device.metric(restarts)
    with under_load(device.service.url, device.film, device.expect) as answers:
        device.fail(calls=5)
        until(lambda: device.metric(restarts) >= before + 2, seconds=120)
        device.fail()
    answers.require(refusals=REFUSED)
