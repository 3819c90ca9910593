"""Calibrated independent scores, and the fit of a λ that was not fitted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.videoclip.calibration import Calibration
from service.videoclip.independent import Platt, independent

RELIABILITY = {
    "ece": 0.1,
    "log_loss": 0.2,
    "bins": [{"low": 0.0, "high": 1.0, "pairs": 4, "mean_score": 0.5, "share_true": 0.25}],
}


def calibration(*points: tuple[float, float, float]) -> Calibration:
    """Fits at some λ: (λ, slope, intercept)."""
    return Calibration.model_validate(document(*points))


def document(*points: tuple[float, float, float]) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "template_set": "none",
        "list_sha256": "0" * 64,
        "videos": 20,
        "labels": 3,
        "pairs": 60,
        "true_pairs": 20,
        "folds": 5,
        "points": [
            {
                "clip_weight": weight,
                "slope": slope,
                "intercept": intercept,
                "before": RELIABILITY,
                "after": RELIABILITY,
            }
            for weight, slope, intercept in points
        ],
    }


@given(
    values=st.lists(st.floats(-200, 200), min_size=1, max_size=9),
    level=st.floats(-100, 100),
    slope=st.floats(0.01, 10),
    intercept=st.floats(-20, 20),
)
def test_a_calibrated_score_is_the_sigmoid_of_the_line(
    values: list[float], level: float, slope: float, intercept: float
) -> None:
    """The order of labels stays; slope 1 and intercept 0 are the plain score."""
    array = np.array(values)
    found = independent(array, level=level, calibration=Platt(slope, intercept))
    line = slope * (array - level) + intercept
    assert found == pytest.approx(1 / (1 + np.exp(-np.clip(line, -700, 700))), abs=1e-12)
    order = np.argsort(array, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)
    plain = independent(array, level=level)
    assert np.array_equal(independent(array, level=level, calibration=Platt()), plain)


def test_between_fitted_lambdas_the_line_is_interpolated() -> None:
    """At a fitted one it is the fit; outside of them there is none."""
    fitted = calibration((0.2, 1.0, -2.0), (0.6, 3.0, 0.0), (0.8, 1.0, 1.0))
    assert fitted.at(0.2) == Platt(1.0, -2.0)
    assert fitted.at(0.8) == Platt(1.0, 1.0)
    between = fitted.at(0.3)
    assert between is not None
    assert (between.slope, between.intercept) == pytest.approx((1.5, -1.5))
    assert fitted.at(0.1) is None
    assert fitted.at(0.9) is None
    alone = calibration((0.5, 2.0, 1.0))
    assert alone.at(0.5) == Platt(2.0, 1.0)
    assert alone.at(0.4) is None


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least 1"),
        ([(0.5, 1.0, 0.0), (0.5, 2.0, 0.0)], "must ascend"),
        ([(0.5, 0.0, 0.0)], "greater than 0"),
        ([(0.5, 1.0, float("nan"))], "finite"),
    ],
)
def test_a_fit_that_would_spoil_scores_is_refused(
    points: list[tuple[float, float, float]], message: str
) -> None:
    """No points, two at one λ, a slope that turns the order round, a number that is none."""
    with pytest.raises(ValidationError, match=message):
        calibration(*points)
