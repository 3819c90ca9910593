"""Calibration: the fit is the likeliest line, reliability is counted, the manifest keeps both."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from service.videoclip.background import background_labels
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.independent import Platt, background_level, independent
from service.videoclip.manifest import load_manifest, verify_files
from tests.conftest import REPOSITORY
from training.__main__ import main
from training.calibrate import (
    BINS,
    CalibrationError,
    Margins,
    fit_platt,
    measure_margins,
    out_of_fold,
    reliability,
)
from training.data.motion_world import sets
from training.data.motion_world.drawing import Camera, draw
from training.data.motion_world.files import write_video
from training.evaluate.artefact import PublishedModel
from training.evaluate.embedding import embed_once
from training.evaluate.inputs import EvaluationList, open_plan
from training.evaluate.plan import ClassPart
from training.rewrite_manifest import rewrite_manifest

VIDEOS = 24
SEEDS = st.integers(0, 2**31)


def drawn(
    seed: int, count: int, *, slope: float, intercept: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Margins and whether each pair is true, which a line through the margin says how often."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(-3.0, 4.0, count)
    chances = independent(margins, level=0.0, calibration=Platt(slope, intercept))
    return margins, rng.random(count) < chances


@given(seed=SEEDS, slope=st.floats(0.1, 3.0), intercept=st.floats(-2.0, 4.0))
@settings(max_examples=30, deadline=None)
def test_the_fit_is_the_likeliest_line(seed: int, slope: float, intercept: float) -> None:
    """As another minimiser finds it, on Platt's targets."""
    margins, truth = drawn(seed, 400, slope=slope, intercept=intercept)
    positives, negatives = truth.sum(), (~truth).sum()
    if min(positives, negatives) < 10:
        return
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(line: NDArray[np.float64]) -> float:
        scores = line[0] * margins + line[1]
        return float(np.mean(np.logaddexp(0.0, scores) - targets * scores))

    found = fit_platt(margins, truth)
    best = minimize(loss, np.array([0.5, 0.5]), method="BFGS", options={"gtol": 1e-9})
    assert loss(np.array([found.slope, found.intercept])) <= best.fun + 1e-8
    assert [found.slope, found.intercept] == pytest.approx(list(best.x), abs=2e-3)


def test_the_fit_finds_the_line_that_made_the_labels() -> None:
    """Up to chance, with many pairs."""
    margins, truth = drawn(3, 50_000, slope=0.4, intercept=1.5)
    found = fit_platt(margins, truth)
    assert [found.slope, found.intercept] == pytest.approx([0.4, 1.5], abs=0.06)


def test_margins_that_part_true_from_wrong_have_a_finite_fit() -> None:
    """However far apart they are, and however large."""
    for scale in (1e-3, 1.0, 1e3):
        margins = scale * np.array([-2.0, -1.0, 1.0, 2.0])
        found = fit_platt(margins, margins > 0)
        assert 0.0 < found.slope < np.inf
        scores = independent(margins, level=0.0, calibration=found)
        assert np.all((scores > 0.5) == (margins > 0))


@pytest.mark.parametrize(
    ("margins", "truth", "message"),
    [
        ([0.0, 1.0], [True, True], "2 true pairs, 0 wrong ones"),
        ([0.0, 1.0], [False, False], "0 true pairs"),
        ([1.0, 1.0], [True, False], "the same score"),
        ([0.0, 1.0, 0.1, 0.9], [True, False, True, False], "do not score higher"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    margins: list[float], truth: list[bool], message: str
) -> None:
    """One kind of pairs, one score, or the wrong way round."""
    with pytest.raises(CalibrationError, match=message):
        fit_platt(np.array(margins), np.array(truth))


@given(
    pairs=st.lists(
        st.tuples(
            st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1 / 15, 0.2, 1.0])), st.booleans()
        ),
        min_size=1,
        max_size=40,
    )
)
def test_reliability_is_counted_bin_by_bin(pairs: list[tuple[float, bool]]) -> None:
    """Bins (low, high], 0 in the first; the error is the mean distance weighted by pairs."""
    found = reliability(np.array([p for p, _ in pairs]), np.array([t for _, t in pairs]))
    expected, total = [], 0.0
    for i in range(BINS):
        own = [(p, t) for p, t in pairs if max(0, min(BINS - 1, int(np.ceil(p * BINS)) - 1)) == i]
        if own:
            mean = sum(p for p, _ in own) / len(own)
            share = sum(t for _, t in own) / len(own)
            expected.append((len(own), mean, share))
            total += len(own) / len(pairs) * abs(mean - share)
    assert found.ece == pytest.approx(total)
    assert [b.pairs for b in found.bins] == [n for n, _, _ in expected]
    assert [b.mean_score for b in found.bins] == pytest.approx([m for _, m, _ in expected])
    assert [b.share_true for b in found.bins] == pytest.approx([s for _, _, s in expected])
    for part in found.bins:
        assert part.low - 1e-9 <= part.mean_score <= part.high + 1e-9


def test_a_perfect_score_loses_nothing_and_a_wrong_one_much() -> None:
    """Log loss in nats."""
    truth = np.array([True, False])
    assert reliability(np.array([1.0, 0.0]), truth).log_loss == 0.0
    assert reliability(np.array([0.5, 0.5]), truth).log_loss == pytest.approx(np.log(2.0))
    assert 100.0 < reliability(np.array([0.0, 0.0]), truth).log_loss < 1000.0


def test_a_video_is_scored_by_a_fit_to_others() -> None:
    """What is true of it does not change its own score, and changes the others'."""
    margins, truth = drawn(5, 400, slope=1.0, intercept=0.0)
    table = Margins(margins.reshape(40, 10), truth.reshape(40, 10))
    flipped = table.truth.copy()
    flipped[7] = ~flipped[7]
    before, after = out_of_fold(table), out_of_fold(Margins(table.values, flipped))
    assert np.array_equal(before[7], after[7])
    assert not np.array_equal(before, after)
    assert np.isfinite(before).all()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos the demo model confuses: nouns new to it, motions and their reverses, in turns."""
    folder = tmp_path_factory.mktemp("videos")
    rows = ["path,label"]
    labels = sorted({e.label for e in sets.examples("unseen-nouns", "test", count=6, seed=1)})
    for i, example in enumerate(sets.examples("unseen-nouns", "test", count=400, seed=1)):
        if example.label in labels and len(rows) <= VIDEOS:
            frames = draw(example.scene, Camera(pixels=80, frames=16, seconds=2.0))
            write_video(folder / f"{i}.mp4", frames, seconds=2.0)
            rows.append(f"{i}.mp4,{example.label}")
    assert len(rows) == VIDEOS + 1
    (folder / "list.csv").write_text("\n".join(rows))
    return folder / "list.csv"


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A copy of the demo model, in a store of its own."""
    (folder,) = (REPOSITORY / "model_store" / "demo").iterdir()
    return Path(shutil.copytree(folder, tmp_path / "demo" / folder.name))


def test_margins_are_the_services(videos: Path, artefact: Path) -> None:
    """Logit minus the level of the background, for each video and label."""
    model = PublishedModel(artefact, threads=1)
    plan = open_plan(EvaluationList(videos=(videos,)))
    (part,) = plan.parts
    assert isinstance(part, ClassPart)
    weight = model.manifest.default_clip_weight
    embedded = embed_once({"m": model}, part.videos[:2], clip_weights=(weight,))
    two = part.only(part.videos[:2])
    own = model.manifest.background_labels
    found = measure_margins(model, two, embedded.features["m", weight], background=own)
    for row, path in enumerate(two.videos):
        way = model.way
        clip = decode_clips(
            path, sampling=way.sampling, preprocessing=way.preprocessing, limits=Limits()
        )
        pooled = model.embed(clip.pixels[None])[0]
        around = model.logit_scale * model.classifier(background_labels(own)[0]) @ pooled
        logits = model.logit_scale * model.classifier(two.classes) @ pooled
        margins = logits - background_level(around)
        assert found.values[row] == pytest.approx(margins, abs=1e-3)
        assert found.truth[row].tolist() == [i == two.labels[row] for i in range(6)]


def test_the_command_writes_the_fit_into_the_manifest(
    videos: Path, artefact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same revision, same files, less error than before; nothing else is in the folder."""
    before = load_manifest(artefact)
    names = sorted(path.name for path in artefact.iterdir())
    arguments = ["calibrate", str(artefact), str(videos), "--clip-weight", "0", "0.7"]
    assert main([*arguments, "--dry-run"]) == 0
    assert load_manifest(artefact) == before
    assert main(arguments) == 0
    assert "| 0.7 |" in capsys.readouterr().out
    after = load_manifest(artefact)
    verify_files(artefact, after)
    assert after.model_copy(update={"calibration": None}) == before
    assert sorted(path.name for path in artefact.iterdir()) == names
    assert [path.name for path in artefact.parent.iterdir()] == [artefact.name]
    fitted = after.calibration
    assert fitted is not None
    assert (fitted.videos, fitted.labels, fitted.pairs, fitted.true_pairs) == (24, 6, 144, 24)
    assert [point.clip_weight for point in fitted.points] == [0.0, 0.7]
    assert fitted.template_set == before.template_set
    for point in fitted.points:
        assert point.after.log_loss < point.before.log_loss
        assert sum(part.pairs for part in point.before.bins) == 144
    assert fitted.at(0.7) == Platt(fitted.points[1].slope, fitted.points[1].intercept)


def test_a_manifest_is_replaced_in_one_step(artefact: Path) -> None:
    """Its text is what publishing writes; without a fit the file is as it was."""
    text = (artefact / "manifest.json").read_text()
    rewrite_manifest(artefact, load_manifest(artefact))
    assert json.loads((artefact / "manifest.json").read_text()) == json.loads(text)
    assert "calibration" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "1"], "--folds 1: below 2"),
        (["--clip-weight", "2"], "--clip-weight 2.0: not within 0 and 1"),
        (["--clip-weight", "0", "--folds", "50"], "24 videos to fit to: at least 50"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(
    videos: Path,
    artefact: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong arguments, and too few videos."""
    assert main(["calibrate", str(artefact), str(videos), *arguments]) == 2
    assert message in capsys.readouterr().err
    few = videos.with_name("few.csv")
    few.write_text("\n".join(videos.read_text().splitlines()[:4]))
    assert main(["calibrate", str(artefact), str(few), "--clip-weight", "0.7"]) == 2
    assert "3 videos to fit to: at least 20 are needed" in capsys.readouterr().err
    assert load_manifest(artefact).calibration is None
