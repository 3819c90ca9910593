"""Parts of a list."""

from collections import Counter
from pathlib import Path

import pytest

from training.config import ConfigError
from training.data.annotations import LabelledVideo
from training.data.few_shot import Subset
from training.evaluate.few_shot import FewShotError


def listed(**counts: int) -> list[LabelledVideo]:
    """So many videos of each class."""
    return [
        LabelledVideo(Path(f"{label}/{number}.mp4"), label)
        for label, count in counts.items()
        for number in range(count)
    ]


VIDEOS = listed(run=20, swim=20, jump=20, rare=3, rarer=2, rarest=2)


def test_shots_are_the_same_wherever_they_are_drawn() -> None:
    """K of each class; the seed decides which, and more shots only add to fewer."""
    videos = listed(run=20, swim=20, jump=20)
    four = Subset(shots=4, seed=3).of(videos)
    assert Counter(video.label for video in four) == {"run": 4, "swim": 4, "jump": 4}
    assert four == Subset(shots=4, seed=3).of(videos)
    assert four != Subset(shots=4, seed=4).of(videos)
    assert set(Subset(shots=2, seed=3).of(videos)) < set(four)


def test_base_is_the_more_frequent_half_and_novel_the_rest() -> None:
    """No class is in both halves, and together they are the list."""
    base, novel = Subset(classes="base").of(VIDEOS), Subset(classes="novel").of(VIDEOS)
    assert {video.label for video in base} == {"run", "swim", "jump"}
    assert {video.label for video in novel} == {"rare", "rarer", "rarest"}
    assert set(base) | set(novel) == set(VIDEOS)
    assert Subset(classes="novel", shots=2).of(VIDEOS) != novel


def test_equally_frequent_classes_are_shared_out_by_seed() -> None:
    """As in HMDB-51: every seed has its halves, always of the same sizes."""
    videos = listed(**dict.fromkeys("abcdefg", 5))
    halves = {
        tuple(sorted({v.class_name for v in Subset(classes="base", seed=seed).of(videos)}))
        for seed in range(10)
    }
    assert len(halves) > 5
    assert {len(half) for half in halves} == {4}


def test_shots_are_repeated_until_a_pass_is_about_as_long_as_the_list() -> None:
    """Text4Vis as coded: floor(N / (K * c)) times; of half the classes, N counts theirs alone."""
    videos = [*VIDEOS, *listed(swing=3)]
    for classes, expected in (("all", 70 // 14), ("base", 63 // 8), ("novel", 7 // 6)):
        subset = Subset(shots=2, repeat=True, classes=classes)  # type: ignore[arg-type]
        taken = subset.of(videos)
        assert subset.copies(videos, taken) == expected, classes
        once = Subset(shots=2, classes=classes)  # type: ignore[arg-type]
        assert once.of(videos) == taken
        assert once.copies(videos, taken) == 1


def test_too_few_videos_and_no_shots_are_refused() -> None:
    """A class with fewer videos than shots is named."""
    with pytest.raises(FewShotError, match="'rare' has 3 videos"):
        Subset(shots=4).of(VIDEOS)
    with pytest.raises(ConfigError, match="repeat = true"):
        Subset(repeat=True)
    with pytest.raises(ConfigError, match="shots = 0"):
        Subset(shots=0)
