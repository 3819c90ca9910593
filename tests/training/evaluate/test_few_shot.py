"""Few-shot selections: seeded, stable, the same everywhere."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.annotations import LabelledVideo
from training.evaluate.few_shot import FewShotError, select_shots

COUNTS = st.dictionaries(st.text("abcdé ", min_size=1, max_size=4), st.integers(4, 9), min_size=1)


def videos(counts: dict[str, int]) -> list[LabelledVideo]:
    """A list with so many videos of each class."""
    return [
        LabelledVideo(path=Path(f"{label}/{i}.mp4"), label=label)
        for label, count in counts.items()
        for i in range(count)
    ]


@given(counts=COUNTS, shots=st.integers(1, 4), seed=st.integers(0, 9))
def test_each_class_gives_k_different_videos(counts: dict[str, int], shots: int, seed: int) -> None:
    """From the list, none twice."""
    chosen = select_shots(videos(counts), shots=shots, seed=seed)
    assert len({video.path for video in chosen}) == len(chosen)
    assert set(chosen) <= set(videos(counts))
    assert Counter(video.label for video in chosen) == dict.fromkeys(counts, shots)


@given(counts=COUNTS, seed=st.integers(0, 9))
def test_other_classes_and_more_shots_change_no_choice(counts: dict[str, int], seed: int) -> None:
    """K = 2 is part of K = 4, and a class alone gives what it gives among others."""
    two, four = (select_shots(videos(counts), shots=k, seed=seed) for k in (2, 4))
    assert set(two) <= set(four)
    label = min(counts)
    alone = select_shots(videos({label: counts[label]}), shots=2, seed=seed)
    assert alone == [video for video in two if video.label == label]


def test_seeds_differ_and_processes_do_not() -> None:
    """Another interpreter, with another hash seed, chooses the same."""
    counts = {"kick": 30, "kick ball": 30}
    first = [str(v.path) for v in select_shots(videos(counts), shots=8, seed=1)]
    assert first != [str(v.path) for v in select_shots(videos(counts), shots=8, seed=2)]
    program = (
        "from tests.training.evaluate.test_few_shot import videos;"
        "from training.evaluate.few_shot import select_shots;"
        f"print(*(v.path for v in select_shots(videos({counts}), shots=8, seed=1)), sep='|')"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip().split("|") == first


def test_a_class_with_too_few_videos_is_named() -> None:
    """Nothing is repeated in silence."""
    with pytest.raises(FewShotError, match="class 'jump' has 3 videos, 4 shots are wanted"):
        select_shots(videos({"run": 9, "jump": 3}), shots=4, seed=0)
    with pytest.raises(ValueError, match="shots: 0"):
        select_shots(videos({"run": 9}), shots=0, seed=0)
