"""Predicted decoding times: what they depend on, and how measurements correct them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decode.cost import CostModel, Prediction, Work, price, work_for
from service.videoclip.header import VideoHeader
from service.videoclip.manifest import Sampling

EIGHT = Sampling(frames=8)
MINUTE = VideoHeader(
    codec="h264",
    width=1280,
    height=720,
    duration_seconds=60.0,
    fps=25.0,
    key_seconds=10.0,
    size_bytes=20_000_000,
)


def seconds(header: VideoHeader, sampling: Sampling = EIGHT, **options: object) -> float:
    """A prediction without any measurement."""
    return CostModel().predict(header, sampling=sampling, **options).seconds  # type: ignore[arg-type]


def test_the_work_is_what_the_seek_policy_does() -> None:
    """Eight pictures in six groups of 250: from each group's key picture to its last wanted one."""
    work = work_for(MINUTE, sampling=EIGHT, spans=None)
    assert (work.packets, work.groups, work.converted) == (1500, 6, 8)
    wanted = [int((number + 0.5) / 8 * 1500) for number in range(8)]
    last = {number // 250: number % 250 for number in wanted}
    assert work.decoded == sum(place + 1 for place in last.values())
    keys = Sampling(mode="keyframes", frames=8)
    assert work_for(MINUTE, sampling=keys, spans=None) == Work(1500, 6, 6, 6)


def test_spans_and_times_outside_the_video() -> None:
    """A part costs less than the whole; a part that is not there costs the index only."""
    dense = Sampling(frames=100)
    whole = work_for(MINUTE, sampling=dense, spans=None)
    part = work_for(MINUTE, sampling=dense, spans=[(0.0, 5.0)])
    assert part.decoded < whole.decoded
    assert work_for(MINUTE, sampling=EIGHT, spans=[(100.0, 101.0)]).decoded == 0


def test_what_makes_a_video_dear() -> None:
    """More pixels, more pictures, key pictures farther apart, heavier codecs, more bytes."""
    base = seconds(MINUTE)
    assert seconds(replace(MINUTE, width=1920, height=1080)) > 1.5 * base
    assert seconds(MINUTE, Sampling(frames=64)) > base
    assert seconds(replace(MINUTE, key_seconds=1.0)) < 0.5 * base
    prices = [seconds(replace(MINUTE, codec=codec)) for codec in ("hevc", "vp9", "mpeg2video")]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > base
    assert seconds(replace(MINUTE, size_bytes=40_000_000)) > base
    assert seconds(MINUTE, Sampling(mode="keyframes", frames=8)) < 0.3 * base


@given(
    duration=st.none() | st.floats(1e-3, 1e6),
    fps=st.none() | st.floats(1e-3, 1e6),
    key=st.none() | st.floats(1e-6, 1e6),
    width=st.integers(0, 20_000),
    frames=st.integers(1, 64),
)
def test_any_header_has_a_price(
    duration: float | None, fps: float | None, key: float | None, width: int, frames: int
) -> None:
    """Headers lie: whatever one says, the prediction is above 0 and finite."""
    header = VideoHeader("vp9", width, 100, duration, fps, key, 1000)
    work = work_for(header, sampling=Sampling(frames=frames), spans=None)
    assert 1 <= work.converted <= min(frames, work.packets)
    assert work.converted <= work.decoded <= work.packets
    assert 0 < price(header, work) < 1e9


def test_predictions_follow_what_is_measured() -> None:
    """On a machine that is three times slower, they are three times longer after a few videos."""
    model = CostModel()
    assert model.quantiles() == {}
    for _ in range(20):
        prediction = model.predict(MINUTE, sampling=EIGHT)
        model.learn(prediction, 3 * prediction.uncorrected_seconds)
    corrected = model.predict(MINUTE, sampling=EIGHT)
    assert corrected.seconds == pytest.approx(3 * corrected.uncorrected_seconds)
    assert model.quantiles()["0.5"] == pytest.approx(1.0)
    # A codec that was never seen is as slow as the others are; sizes are a guess of their own.
    other = model.predict(replace(MINUTE, codec="vp9"), sampling=EIGHT)
    assert other.seconds == pytest.approx(3 * other.uncorrected_seconds)
    assert model.predict_size(1000).seconds == model.predict_size(1000).uncorrected_seconds


def test_codecs_are_corrected_apart() -> None:
    """HEVC that is dearer than thought does not make H.264 dearer."""
    model = CostModel()
    for codec, factor in (("h264", 1.0), ("hevc", 5.0)) * 20:
        prediction = model.predict(replace(MINUTE, codec=codec), sampling=EIGHT)
        model.learn(prediction, factor * prediction.uncorrected_seconds)
    h264 = model.predict(MINUTE, sampling=EIGHT)
    hevc = model.predict(replace(MINUTE, codec="hevc"), sampling=EIGHT)
    assert h264.seconds == pytest.approx(h264.uncorrected_seconds)
    assert hevc.seconds == pytest.approx(5 * hevc.uncorrected_seconds)


@given(outliers=st.lists(st.floats(1e-3, 1e4), max_size=9))
def test_a_few_strange_videos_change_nothing(outliers: list[float]) -> None:
    """The correction is a median: less than half of the videos cannot move it past the others."""
    model = CostModel()
    for factor in [2.0] * 20 + outliers:
        prediction = model.predict(MINUTE, sampling=EIGHT)
        model.learn(prediction, factor * prediction.uncorrected_seconds)
    corrected = model.predict(MINUTE, sampling=EIGHT)
    assert corrected.seconds == pytest.approx(2 * corrected.uncorrected_seconds)


def test_the_first_odd_video_moves_nothing() -> None:
    """Before anything else is known, prices are believed more than one measurement."""
    model = CostModel()
    prediction = model.predict(MINUTE, sampling=EIGHT)
    model.learn(prediction, 100 * prediction.seconds)
    again = model.predict(MINUTE, sampling=EIGHT)
    assert again == Prediction(prediction.seconds, prediction.uncorrected_seconds, "h264")
