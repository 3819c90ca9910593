"""`train --dry-run`: what a run will cost, and that nothing is left of it."""

from pathlib import Path

import pytest

from tests.training.tiny_run import draw_videos, write_config
from training.__main__ import main
from training.config import load_config
from training.dry_run import Estimate, dry_run
from training.run_config import RunConfig

RECIPES = (
    "[open_vclip]",
    '[fitclip]\nunlabelled_texts = "captions"',
    '[text4vis]\nclassifier = "lda"',
)
# Two hours of computing.
FACTS = {
    "device": "cpu",
    "processes": 1,
    "precision": "fp32",
    "parameters": 1,
    "trained": 1,
    "state_bytes": {},
    "peak_bytes": 1,
    "steps": 3600,
    "videos": 1,
    "clips_per_step": 8,
    "seconds_per_step": 2.0,
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dry_run_counts_and_measures(
    recipe: str, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters, bytes, seconds and steps of the configured batch; nothing is written."""
    videos = draw_videos(tmp_path, count=6)
    path = write_config(
        tmp_path / "run.toml",
        run=tmp_path / "run",
        clip=start,
        videos=videos,
        recipe=recipe,
        data={"unlabelled": str(videos)},
        optimisation={"steps": 600},
        regularisation={"snapshots": 2},
    )
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(path), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    text = capsys.readouterr().out
    for word in ("parameters", "held", "peak memory", "computing", "decoding", "600 steps"):
        assert word in text


def test_a_dry_run_does_not_fill_the_cache(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That decodes the whole set; what it will take is said instead, each file counted once."""
    videos = draw_videos(tmp_path, count=6)
    path = write_config(
        tmp_path / "run.toml",
        run=tmp_path / "run",
        clip=start,
        videos=videos,
        recipe=RECIPES[1],
        data={"unlabelled": str(videos), "cache": str(tmp_path / "cache")},
    )
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(path), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "decoding     6 videos once, into the cache" in capsys.readouterr().out


def test_what_is_held_is_what_the_step_holds(start: Path, tmp_path: Path) -> None:
    """Weights, gradient and two moments; regularisation adds CLIP's, one more copy and the mean."""
    videos = draw_videos(tmp_path, count=4)
    found = {}
    for name, regularisation in (
        ("plain", {}),
        ("regularised", {"interpolation_coefficient": 0.5, "snapshots": 2}),
    ):
        path = write_config(
            tmp_path / "run.toml",
            run=tmp_path / "run",
            clip=start,
            videos=videos,
            regularisation=regularisation,
        )
        found[name] = dry_run(load_config(path, RunConfig))
    plain, regularised = found["plain"], found["regularised"]
    one = plain.state_bytes["weights"]
    assert one >= 4 * plain.trained
    assert sum(plain.state_bytes.values()) == 4 * one
    assert sum(regularised.state_bytes.values()) == 6 * one  # interpolated weights and the mean
    assert plain.parameters > plain.trained
    assert plain.peak_bytes > 4 * one


def test_the_slower_of_computing_and_decoding_decides() -> None:
    """With workers the two overlap; without, they add up."""
    for workers, clip_seconds, hours in ((4, 0.5, 2.0), (4, 2.0, 4.0), (0, 0.5, 6.0), (2, None, 2)):
        estimate = Estimate(**FACTS, workers=workers, clip_seconds=clip_seconds)  # type: ignore[arg-type]
        assert estimate.hours == pytest.approx(hours)


def test_a_cache_is_filled_before_the_first_step_and_then_costs_nothing() -> None:
    """7,200 videos of half a second by two workers are half an hour, before two of computing."""
    estimate = Estimate(**FACTS, workers=2, clip_seconds=0.5, cached_videos=7200)  # type: ignore[arg-type]
    assert estimate.caching_seconds == 1800
    assert estimate.hours == pytest.approx(2.5)
    assert "7200 videos once, into the cache, unless they are there: at least 30.0 minutes" in (
        "\n".join(estimate.lines())
    )


def test_a_dry_run_refuses_what_a_run_would(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong list is the same one line."""
    path = write_config(
        tmp_path / "run.toml", run=tmp_path / "run", clip=start, videos=Path("/nowhere.csv")
    )
    assert main(["train", str(path), "--dry-run"]) == 2
    assert "/nowhere.csv" in capsys.readouterr().err
