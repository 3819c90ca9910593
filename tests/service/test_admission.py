"""Admission: bounded lanes, refusals that say when to come back."""

import pytest

from service.admission import Admission
from service.errors import ApiError
from service.metrics import Metrics


def _admission(limit: int) -> tuple[Admission, Metrics]:
    metrics = Metrics()
    return Admission({"video": limit}, workers={"video": 2}, metrics=metrics), metrics


def test_beyond_the_limit_is_503_until_somebody_leaves() -> None:
    """Places come back, also when the work inside failed."""
    admission, metrics = _admission(2)
    with admission.enter("video"), admission.enter("video"):
        with pytest.raises(ApiError) as caught:
            admission.check("video")
        assert caught.value.status == 503
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
        assert caught.value.limit == 2
    with pytest.raises(RuntimeError, match="inside"), admission.enter("video"):
        raise RuntimeError("inside")
    assert admission.in_flight("video") == 0
    assert b'vtag_rejected_total{reason="queue_full"} 1.0' in metrics.render()


def test_draining_lets_nothing_in() -> None:
    """What is in flight goes on, what comes is told to go elsewhere."""
    admission, _ = _admission(2)
    with admission.enter("video"):
        admission.drain()
        with pytest.raises(ApiError) as caught, admission.enter("video"):
            pytest.fail("nothing may enter")
        assert caught.value.code == "draining"
        assert admission.in_flight("video") == 1
