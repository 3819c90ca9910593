"""Several devices in one service: one that dies is seen by operators, and by no client."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.faults.conftest import START_SECONDS, workers_of
from tests.faults.load import LABELS, under_load, until
from tests.faults.reference import reference_scores
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def _metric(service: RunningService, name: str) -> float:
    lines = httpx.get(f"{service.url}/metrics", timeout=60).text.splitlines()
    [found] = [line for line in lines if line.startswith(f"{name} ")]
    return float(found.split()[-1])


def test_kill_9_of_one_of_two_encoders_loses_nothing(tmp_path: Path) -> None:
    """cpu,cpu: no request is refused, all answers are those of one device, and it comes back.

    Then the other one is killed: the one that came back answers the same.
    """
    manifest = publish(tmp_path / "store")
    film = draw_video(tmp_path / "film.mp4")
    scores = reference_scores(
        tmp_path / "store" / manifest.name / manifest.revision,
        clip_weight=manifest.default_clip_weight,
        film=film,
        labels=LABELS,
    )

    def expect(_space: str) -> Mapping[str, float]:
        return scores

    settings = {
        "VTAG_MODEL_STORE": str(tmp_path / "store"),
        "VTAG_DEVICE": "cpu,cpu",
        "VTAG_DECODE_WORKERS": "1",
    }
    with (
        state_folder() as state,
        running_service(state, environment=settings, start_seconds=START_SECONDS) as service,
    ):
        first, second = sorted(workers_of(service, "encode"), key=psutil.Process.create_time)
        statuses: set[int] = set()
        seen: set[str] = set()

        def all_well() -> bool:
            answer = httpx.get(f"{service.url}/readyz", timeout=60)
            statuses.add(answer.status_code)
            seen.add(answer.json()["components"]["encoder"])
            return set(answer.json()["devices"].values()) == {"ok"}

        assert all_well()
        for number, victim in enumerate((first, second), start=1):
            with under_load(service.url, film.read_bytes(), expect, settle=3) as answers:
                victim.kill()
                until(lambda: not all_well())
                until(all_well, seconds=120)
            answers.require()
            assert _metric(service, 'vtag_worker_restarts_total{worker="encoder"}') == number
        assert (statuses, seen) == ({200}, {"ok", "degraded"})
        restarts = [f'vtag_encoder_device_restarts_total{{device="{n}"}}' for n in (0, 1)]
        assert [_metric(service, name) for name in restarts] == [1, 1]
        assert _metric(service, 'vtag_predicted_wait_seconds{lane="download"}') == 0
