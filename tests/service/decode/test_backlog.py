"""How long a video that is sent now waits."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decode.backlog import Backlog, remaining, start_delay
from service.decode.cost import Prediction

SECONDS = st.lists(st.floats(0, 100), max_size=20)


def test_small_queues() -> None:
    """An idle worker takes it at once; else the worker that is free first does."""
    assert start_delay([], [], workers=1) == 0
    assert start_delay([5.0], [], workers=2) == 0
    assert start_delay([5.0, 3.0], [], workers=2) == 3
    assert start_delay([5.0, 3.0], [1.0], workers=2) == 4
    assert start_delay([5.0, 3.0], [1.0, 10.0], workers=2) == 5
    with pytest.raises(ValueError, match="2 videos run on 1 workers"):
        start_delay([1.0, 1.0], [], workers=1)


@given(running=SECONDS, waiting=SECONDS, workers=st.integers(1, 4), more=st.floats(0, 100))
def test_the_delay_lies_between_its_bounds(
    running: list[float], waiting: list[float], workers: int, more: float
) -> None:
    """Never above an even share of all the work, never below it less the longest; more is later."""
    running = running[:workers]
    delay = start_delay(running, waiting, workers=workers)
    total = sum(running) + sum(waiting)
    longest = max([*running, *waiting], default=0.0)
    assert delay <= total / workers + 1e-6
    assert delay >= total / workers - longest - 1e-6
    assert start_delay(running, [*waiting, more], workers=workers) >= delay


@given(predicted=st.floats(0.001, 100), elapsed=st.floats(0, 1000))
def test_a_call_that_runs_is_never_done_before_it_ends(predicted: float, elapsed: float) -> None:
    """What remains shrinks until the prediction is reached, then grows: it was a bad one."""
    left = remaining(Prediction(predicted, predicted, "h264"), elapsed_seconds=elapsed)
    assert left >= 0
    if elapsed <= predicted:
        assert left == pytest.approx(predicted - elapsed)
    else:
        assert left == pytest.approx((elapsed - predicted) / 2)


def test_jobs_count_until_they_end() -> None:
    """Waiting, working, and gone on every path."""
    backlog = Backlog(workers=1)
    ten = Prediction(10.0, 10.0, "h264")
    with backlog.job(ten) as first, backlog.job(ten) as second:
        assert (backlog.waiting, backlog.seconds) == (2, 20.0)
        first.began = time.monotonic()
        assert backlog.waiting == 1
        np.testing.assert_allclose(backlog.seconds, 20.0, atol=1.0)
        second.prediction = Prediction(1.0, 1.0, "h264")
        np.testing.assert_allclose(backlog.seconds, 11.0, atol=1.0)
        with pytest.raises(KeyError), backlog.job(ten):
            raise KeyError
    assert (backlog.waiting, backlog.seconds) == (0, 0.0)
