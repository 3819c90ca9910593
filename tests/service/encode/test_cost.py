"""The cost model finds the line that made the times, and the size that it says is best."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encode.batcher import BUCKETS
from service.encode.cost import CostModel, SizeCap

SECONDS = st.floats(1e-4, 10)
FEW = settings(max_examples=40, deadline=None)


@FEW
@given(each=SECONDS, base=SECONDS, sizes=st.lists(st.integers(1, 64), min_size=2, unique=True))
def test_a_line_is_found_again(each: float, base: float, sizes: list[int]) -> None:
    """Times that lie on a line give its slope and its base, wherever they were measured."""
    model = CostModel()
    for size in sizes:
        model.add(size, each * size + base)
    for size in sizes:
        assert model.seconds(size) == pytest.approx(each * size + base, rel=0.1)


def test_one_size_alone_says_nothing_about_the_base() -> None:
    """Then the cost is a multiple of it."""
    model = CostModel()
    assert model.seconds(5) == 0
    model.add(4, 2.0)
    assert model.seconds(8) == pytest.approx(4.0)


def test_recent_times_replace_old_ones() -> None:
    """A machine that became slower is noticed after some batches; one slow moment is not."""
    model = CostModel()
    for _ in range(8):
        model.add(1, 1.0)
    model.add(1, 60.0)
    assert model.seconds(1) == pytest.approx(1.0)
    for _ in range(8):
        model.add(1, 2.0)
    assert model.seconds(1) == pytest.approx(2.0)


def _learned(seconds: dict[int, float], *, rounds: int = 600) -> tuple[CostModel, list[int]]:
    """A model that chose all sizes itself on a device with these times, and what it chose."""
    model = CostModel()
    model.add(1, seconds[1])
    chosen = []
    for _ in range(rounds):
        size = model.choose(16, cap=16)
        chosen.append(size)
        model.add(size, seconds[size])
    return model, chosen


def test_on_a_device_that_one_clip_fills_one_goes_at_a_time() -> None:
    """The measured times of ViT-B/32 on two CPU cores: larger batches gain nothing, and wait."""
    rates = {1: 6.22, 2: 6.01, 4: 5.92, 8: 5.59, 16: 5.03}
    seconds = {n: n / rates[max(size for size in rates if size <= n)] for n in range(1, 17)}
    _, chosen = _learned(seconds)
    assert chosen.count(1) > 0.95 * len(chosen)
    assert max(chosen) > 1  # it did try


def test_on_a_device_that_costs_much_for_each_batch_many_go_together() -> None:
    """20 ms for each batch and 1 ms for each clip: near the largest batch, found by doubling."""
    _, chosen = _learned({n: 0.02 + 0.001 * n for n in range(1, 17)})
    assert chosen[:3] == [2, 4, 8]
    assert min(chosen[4:]) >= 14


@FEW
@given(
    each=SECONDS, base=SECONDS, waiting=st.integers(1, 200), cap=st.integers(1, 64), data=st.data()
)
def test_a_size_is_allowed_and_worth_it(
    each: float, base: float, waiting: int, cap: int, data: st.DataObject
) -> None:
    """Never more than wait or fit; never dearer by much than the best; padding pays for itself."""
    buckets = BUCKETS if data.draw(st.booleans()) else ()
    model = CostModel(buckets=buckets)
    for size in (1, 2, 4, 8, 16, 32, 64):
        model.add(size, each * size + base)
    size = model.choose(waiting, cap=cap)
    assert 1 <= size <= min(waiting, cap)
    if buckets and model.padded(size) != size:
        below = max(bucket for bucket in buckets if bucket <= size)
        assert model.seconds(size) <= model.seconds(below) + model.seconds(size - below) + 1e-9
    if not buckets:
        best = (each * min(waiting, cap) + base) / min(waiting, cap)
        assert (each * size + base) / size <= 1.2 * best


@FEW
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 64)), max_size=200))
def test_a_cap_stays_between_one_and_its_limit(events: list[tuple[bool, int]]) -> None:
    """Halved by each batch that did not fit, growing only with success at the cap."""
    cap = SizeCap(64, calm_batches=4)
    for fitted, size in events:
        before = cap.value
        if fitted:
            cap.fitted(size)
            assert before <= cap.value <= before + max(1, before // 4)
        else:
            cap.ran_out(size)
            assert cap.value == min(before, max(1, size // 2))
        assert 1 <= cap.value <= 64


def test_a_cap_grows_back_slowly() -> None:
    """Only batches as large as the cap count, and many of them."""
    cap = SizeCap(8, calm_batches=3)
    cap.ran_out(8)
    for _ in range(10):
        cap.fitted(2)
    assert cap.value == 4
    for _ in range(3):
        cap.fitted(4)
    assert cap.value == 5
