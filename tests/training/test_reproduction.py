"""`make reproduce`: what is compared, by which rule, from which results; and a small one, whole."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import load_config
from training.data.few_shot import Subset
from training.errors import Refusal
from training.reproduction.claims import (
    HOLDS,
    MISSING,
    OPEN,
    OPPOSITE,
    UNFINISHED,
    Claim,
    claims,
)
from training.reproduction.config import ReproductionConfig
from training.reproduction.figures import BALANCE, CLIP_PER_FRAME, At, Figures
from training.reproduction.grid import EVERYTHING, runs
from training.reproduction.jobs import UNTRAINED, jobs
from training.reproduction.make import main
from training.reproduction.measuring import direction
from training.reproduction.remarks import (
    beside_verdicts,
    deviations,
    not_reproduced,
    rule_history,
)
from training.reproduction.report import Provenance, write_report
from training.reproduction.results import Result, ResultFolder, Results, result_key
from training.reproduction.words import word_rows
from training.reproduction.world import Clips
from training.select_lambda import EvaluationSet

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "training" / "configs"
SMALL = CONFIGS / "reproduction_small.toml"
POINTS = st.floats(-50.0, 50.0, allow_nan=False)


def config(name: str = "reproduction") -> ReproductionConfig:
    """A committed configuration."""
    return load_config(CONFIGS / f"{name}.toml", ReproductionConfig)


def result(run: str, seed: int, scores: dict[str, dict[str, dict[str, float]]]) -> Result:
    """A finished run."""
    return Result(run, seed, scores, first_loss=2.0, last_loss=1.0, seconds=10.0)


def claim(*gaps: float) -> Claim:
    """A comparison with these differences."""
    return Claim("paper", "text", "compared", dict(enumerate(gaps)))


def counted(scores: Any) -> Any:
    """Rounded shares of 384 videos, or of half of them, as they were before they were rounded."""
    if isinstance(scores, dict):
        return {name: counted(each) for name, each in scores.items()}
    exact = (round(scores * n / 100) * 100 / n for n in (384, 192))
    return next(share for share in exact if round(share, 2) == scores)


class TestGrid:
    """What is trained."""

    def test_every_run_has_a_name_of_its_own_and_settings_that_the_engine_takes(self) -> None:
        """Results are filed by the name; a wrong key of a table fails here, not after an hour."""
        given_runs = runs(config())
        assert len({run.name for run in given_runs}) == len(given_runs)
        for run in given_runs:
            assert run.optimisation_config(config().training).batch_size == 16
            assert run.regularisation_config().snapshots in (0, 20)

    def test_what_differs_within_a_comparison_is_not_the_learning_rate(self) -> None:
        """CLIP's own weights move at one rate, whichever recipe's factors lead there."""
        training = config().training
        for run in runs(config()):
            if run.recipe == "fitclip" or run.stage_one is not None:
                continue
            rate = run.optimisation_config(training).peak_learning_rate
            rate *= run.settings.get("tower_factor", 1.0)
            assert rate == pytest.approx(training.peak_learning_rate), run.name

    def test_first_stages_come_before_what_needs_them_and_keep_their_weights(self) -> None:
        """The queue could otherwise wait for ever."""
        order = [(job.run.name, job.seed) for job in jobs(config())]
        for job in jobs(config()):
            if job.after is not None:
                first = (job.after.run.name, job.after.seed)
                assert order.index(first) < order.index((job.run.name, job.seed))
                assert job.after.run.keep

    def test_a_sentence_encoder_adds_a_row(self) -> None:
        """Where there is none the row is missing, and never filled with something else."""
        without = {run.name for run in runs(config())}
        given_one = replace(config(), sentence_encoder=Path("encoder"))
        added = {run.name for run in runs(given_one)} - without
        assert added == {"rows-sentences-few", "rows-sentences-full"}


class TestConfig:
    """What is refused."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"seeds": ()}, "seeds"),
            ({"seeds": (0, 0)}, "none twice"),
            ({"clip_weights": (0.0, 0.4)}, "clip_weights"),
            ({"clip_weights": (0.0, 0.5, 1.0)}, "below 1"),
            ({"processes": 0}, "processes"),
        ],
    )
    def test_impossible_values_are_one_line(self, change: dict[str, object], words: str) -> None:
        """They name the key."""
        with pytest.raises(Refusal, match=words):
            replace(config(), **change)  # type: ignore[arg-type]

    def test_shots_ascend(self) -> None:
        """The first is the few of Text4Vis, the last the most of ViFi-CLIP."""
        with pytest.raises(Refusal, match="shots"):
            replace(config().training, shots=(4, 2))


class TestResults:
    """Files of finished runs."""

    def test_a_result_is_found_again_and_no_other_settings_find_it(self, tmp_path: Path) -> None:
        """A changed configuration must not take figures of the old one."""
        run = runs(config())[0]
        folder = ResultFolder(tmp_path, config(), "clip")
        assert folder.read(run, 0) is None
        written = result(run.name, 0, {"last": {"0": {"source": 50.0}}})
        folder.write(run, written)
        assert folder.read(run, 0) == written
        assert folder.read(run, 1) is None
        other = replace(config(), training=replace(config().training, steps=151))
        assert ResultFolder(tmp_path, other, "clip").read(run, 0) is None
        assert ResultFolder(tmp_path, config(), "another CLIP").read(run, 0) is None

    def test_seeds_and_processes_do_not_make_a_result_another_one(self) -> None:
        """A fourth seed costs one seed more, not four."""
        run = runs(config())[0]
        more = replace(config(), seeds=(0, 1, 2, 3), processes=8)
        assert result_key(run, 0, config(), "clip") == result_key(run, 0, more, "clip")

    def test_weights_that_another_run_needs_belong_to_the_result(self, tmp_path: Path) -> None:
        """A result whose weights were lost is done again."""
        run = next(run for run in runs(config()) if run.keep)
        folder = ResultFolder(tmp_path, config(), "clip")
        folder.write(run, result(run.name, 0, {}))
        assert folder.read(run, 0) is None
        folder.weights(run, 0).touch()
        assert folder.read(run, 0) is not None


class TestFigures:
    """Means, spreads and differences."""

    def test_only_seeds_that_both_have_are_compared(self) -> None:
        """Of one seed each, differences would mix seeds."""
        results = Results(
            [
                result("a", 0, {"last": {"0": {"source": 50.0}}}),
                result("a", 1, {"last": {"0": {"source": 60.0}}}),
                result("b", 1, {"last": {"0": {"source": 55.0}}}),
            ]
        )
        figures = Figures(results, (0, 1, 2))
        assert figures.gap(At("a"), At("b"), "source") == {1: 5.0}
        assert figures.cell(At("a"), "source") == "55.0 ± 7.1 (2 of 3 seeds)"
        assert figures.cell(At("c"), "source") == "–"

    def test_clip_itself_is_the_same_for_all_seeds(self) -> None:
        """It is measured once, and has no deviation."""
        scores = {"per frame": {"1": {"source": 40.0}}}
        figures = Figures(Results([result("CLIP", 0, scores)]), (0, 1))
        assert figures.values(CLIP_PER_FRAME, "source") == {0: 40.0, 1: 40.0}
        assert figures.cell(CLIP_PER_FRAME, "source") == "40.0"

    @given(middle=POINTS, ends=st.lists(POINTS, min_size=2, max_size=2))
    def test_above_both_ends_is_the_distance_to_the_better_one(
        self, middle: float, ends: list[float]
    ) -> None:
        """The loop: the smaller of the two differences."""
        sets = {
            name: {"last": {"0": {"s": v}}} for name, v in zip("mab", [middle, *ends], strict=True)
        }
        figures = Figures(Results([result(n, 0, s) for n, s in sets.items()]), (0,))
        found = figures.above_both(At("m"), (At("a"), At("b")), "s")
        assert found == {0: pytest.approx(middle - max(ends))}


class TestVerdicts:
    """The rule, which stands in the report."""

    @pytest.mark.parametrize(
        ("gaps", "verdict"),
        [
            ((2.0, 1.0, 3.0), HOLDS),
            ((2.0, -0.1, 3.0), OPEN),
            ((0.5, 0.4, 0.6), OPEN),
            ((-2.0, -1.0, -3.0), OPPOSITE),
            ((-2.0, 0.1, -3.0), OPEN),
            ((-0.5, -0.4, -0.6), OPEN),
            ((-2.0, 1.0, 0.5), OPEN),
            ((0.0, 0.0, 0.0), OPEN),
            ((), MISSING),
        ],
    )
    def test_the_rule(self, gaps: tuple[float, ...], verdict: str) -> None:
        """One seed against it, or too little, is not enough, for a yes or for a no."""
        assert claim(*gaps).verdict == verdict

    @given(st.lists(POINTS, min_size=1, max_size=4))
    def test_a_no_needs_as_much_as_a_yes(self, gaps: list[float]) -> None:
        """The rule is its own mirror image, and the order of the seeds does not matter."""
        mirrored = {HOLDS: OPPOSITE, OPPOSITE: HOLDS, OPEN: OPEN}
        opposite = claim(*(-gap for gap in gaps))
        assert opposite.verdict == mirrored[claim(*gaps).verdict]
        assert claim(*reversed(gaps)).verdict == claim(*gaps).verdict

    @given(
        st.lists(POINTS, min_size=1, max_size=4),
        st.lists(st.floats(0.0, 20.0), min_size=4, max_size=4),
    )
    def test_more_points_never_make_a_verdict_worse(
        self, gaps: list[float], more: list[float]
    ) -> None:
        """From the opposite over undecided to a claim that holds."""
        order = (OPPOSITE, OPEN, HOLDS)
        better = claim(*(gap + extra for gap, extra in zip(gaps, more, strict=False)))
        assert order.index(better.verdict) >= order.index(claim(*gaps).verdict)

    def test_one_seed_of_three_decides_nothing(self) -> None:
        """An unfinished reproduction must not read like a finished one."""
        assert replace(claim(5.0), seeds=3).verdict == UNFINISHED

    def test_nothing_measured_is_nothing_claimed(self) -> None:
        """Every claim can be asked of an empty folder."""
        found = claims(Figures(Results([]), (0, 1, 2)), config())
        assert {each.verdict for each in found} == {MISSING}
        assert {each.paper for each in found} >= {
            *("Open-VCLIP", "Open-VCLIP++", "ViFi-CLIP", "FitCLIP", "Text4Vis")
        }


class TestRemarks:
    """What stands beside the figures."""

    def test_the_report_says_what_the_mirrored_rule_changed(self) -> None:
        """It was changed with the results at hand."""
        text = rule_history([claim(2.0, 3.0), claim(-0.5, -0.1), claim(0.0), claim(-2.0), claim()])
        assert "after the results were seen" in text
        assert "3 did not hold; 2 of these are undecided now" in text

    def test_every_verdict_on_a_mixed_run_has_a_mark_and_the_mark_its_figures(self) -> None:
        """ViFi-CLIP's short runs measure mixing; one run with hard labels shows by how much."""
        scores = {
            "vifi-both": dict.fromkeys(EVERYTHING, 53.0),
            "vifi-hard-labels": dict.fromkeys(EVERYTHING, 76.0),
        }
        found = [result(name, 0, {"last": {"0": each}}) for name, each in scores.items()]
        clip = result("CLIP", 0, {"per frame": {"1": dict.fromkeys(EVERYTHING, 60.0)}})
        figures = Figures(Results([*found, clip]), (0,))
        marks = {each.paper: each.row()[-1][-1] for each in claims(figures, config())}
        assert marks["ViFi-CLIP"] == "†"
        assert marks["FitCLIP"] == "‡"
        assert marks["Open-VCLIP"] == marks["Text4Vis"] == "*"
        text = " ".join(beside_verdicts(figures, config()).split())
        assert "150 or 60 steps" in text
        assert "reach 76.0 on the source, where the released objective has 53.0" in text
        assert "+16.0 points on unseen-pairs" in text

    def test_settings_of_nobody_are_named_with_their_numbers(self) -> None:
        """They follow the grid: a change there cannot leave the text behind."""
        text = " ".join(deviations(config()).split())
        assert "σ = 0.05 is the paper's" in text
        assert "(1/σ)² = 400" in text
        assert "weighs 0.04; 0.44 with the code's values alone, 0.0001 with the paper's" in text
        assert text.count("Warm-up takes 0.1 of the steps") == 2
        slower = replace(config(), training=replace(config().training, steps=151))
        assert "151 steps" in deviations(slower)

    def test_what_tables_lack_is_listed(self, tmp_path: Path) -> None:
        """Caption weights, shots of prompts, and the sentence encoder unless one is given."""
        text = not_reproduced(config())
        assert "Caption weights 2 and 3; measured are 0, 1 and 4" in text
        assert "K = 4 and 8" in text
        assert "sentence encoder" in text
        assert "sentence encoder" not in not_reproduced(
            replace(config(), sentence_encoder=tmp_path)
        )
        assert "Bridge and prompt" not in not_reproduced(config("reproduction_small"))


class TestParts:
    """Pieces that only the reproduction has."""

    def test_word_rows_know_shared_words_and_nothing_else(self) -> None:
        """Labels with a common word are near each other, without one they are not."""
        classes = ("star growing", "star shrinking", "wheel bouncing")
        rows = word_rows(classes, size=512, seed=0)
        cosines = (rows @ rows.T).numpy()
        assert np.allclose(np.diag(cosines), 1.0, atol=1e-6)
        assert cosines[0, 1] > 0.35
        assert abs(cosines[0, 2]) < 0.2
        assert np.array_equal(rows[:1], word_rows(classes[:1], size=512, seed=0))

    def test_direction_counts_only_verbs_that_have_a_reverse(self) -> None:
        """The right label must score above its reverse; others do not matter."""
        classes = ("star growing", "star shrinking", "star bouncing")
        data = EvaluationSet(np.zeros((3, 1, 1, 1, 3), np.uint8), np.array([0, 1, 2]), classes)
        scores = np.array([[2.0, 1.0, 9.0], [2.0, 1.0, 0.0], [0.0, 0.0, -9.0]], np.float32)
        assert direction(scores, data) == 50.0

    def test_a_part_of_the_clips_has_labels_of_its_own_classes(self) -> None:
        """Base classes are numbered from 0, and every clip keeps its name and caption."""
        names = ("d", "a", "c", "b")
        labels = np.arange(12, dtype=np.int64) % 4
        frames = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1, 1)
        captions = tuple(f"{names[label]} {row}" for row, label in enumerate(labels))
        clips = Clips(frames, labels, names, captions)
        part = clips.of(Subset(classes="base", shots=2, seed=3))
        assert len(part.labels) == 4
        assert part.classes == tuple(name for name in names if name in part.classes)
        for frame, label, caption in zip(part.frames, part.labels, part.captions, strict=True):
            assert caption == f"{part.classes[label]} {frame.item()}"
        assert np.bincount(clips.first(2).labels).tolist() == [2, 2, 2, 2]


class TestReport:
    """What is written."""

    def test_an_unfinished_reproduction_says_so_and_shows_what_is_there(
        self, tmp_path: Path
    ) -> None:
        """Missing figures are dashes, claims about them are not measured."""
        scores = dict.fromkeys((*EVERYTHING[:-1], "retrieval t2v", "retrieval v2t"), 40.0)
        untrained = {"per frame": {"1": scores}, "with neighbours": {"1": scores}}
        better = {name: value + 5.0 for name, value in scores.items()}
        found = [
            result(UNTRAINED.name, 0, untrained),
            *(result("plain", s, {"last": {"0": better, "0.5": scores}}) for s in (0, 1, 2)),
        ]
        provenance = Provenance("reproduction.toml", "demo/1", "0" * 64, {})
        path = write_report(
            config(), Results(found), provenance, output=tmp_path, figures=tmp_path / "figures"
        )
        text = path.read_text(encoding="utf-8")
        assert f"**4 of {len(jobs(config()))} runs are finished**" in text
        assert "| plain | 0 | 45.0 ± 0.0 |" in text
        assert "| IWR | 0 | – |" in text
        assert "**not measured**" in text
        assert "+5.0 ± 0.0 | **holds**" in text
        written = json.loads((tmp_path / "figures" / "results.json").read_text(encoding="utf-8"))
        assert written["results"][1]["scores"]["last"]["0"]["source"] == 45.0
        assert (tmp_path / "figures" / "systems-unseen-pairs.svg").exists()
        mean = Figures(Results(found), config().seeds).cell(At("plain"), BALANCE)
        assert mean == "45.0 ± 0.0"

    def test_the_committed_report_is_made_of_the_committed_results(self, tmp_path: Path) -> None:
        """Every figure, verdict and sentence of it: neither was edited, nor left behind by code."""
        committed = REPOSITORY / "training"
        document = json.loads((committed / "reproduction_figures" / "results.json").read_text())
        results = [Result(**{**r, "scores": counted(r["scores"])}) for r in document["results"]]
        path = write_report(
            config(),
            Results(results),
            Provenance(**document["provenance"]),
            output=tmp_path,
            figures=tmp_path / "reproduction_figures",
        )
        assert path.read_text(encoding="utf-8") == (committed / path.name).read_text(
            encoding="utf-8"
        )

    def test_a_folder_without_results_is_refused(self, tmp_path: Path) -> None:
        """A report of nothing helps nobody."""
        with pytest.raises(Refusal, match="no results"):
            main(
                config=SMALL,
                work=tmp_path,
                output=tmp_path,
                clip=REPOSITORY / "model_store" / "demo",
                report_only=True,
            )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_small_reproduction_runs_whole_and_is_not_done_twice(tmp_path: Path) -> None:
    """Everything is drawn, trained, measured and reported; a second start finds it all there."""
    work, output = tmp_path / "work", tmp_path / "out"
    output.mkdir()
    arguments = {
        "config": SMALL,
        "work": work,
        "output": output,
        "clip": REPOSITORY / "model_store" / "demo",
    }
    with pytest.raises(Refusal, match="no results"):  # drawn, and no time for a single run
        main(**arguments, minutes=0.0)  # type: ignore[arg-type]
    assert main(**arguments) == 0  # type: ignore[arg-type]
    small = config("reproduction_small")
    files = sorted((work / "results").glob("*.json"))
    assert len(files) == len(jobs(small))
    text = (output / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert f"All {len(jobs(small))} runs are finished" in text
    assert "not measured" not in text
    for file in files:
        for end in json.loads(file.read_text(encoding="utf-8"))["scores"].values():
            for scores in end.values():
                assert all(0.0 <= value <= 100.0 for value in scores.values())
    before = {file: file.stat().st_mtime_ns for file in files}
    assert main(**arguments) == 0  # type: ignore[arg-type]
    assert {file: file.stat().st_mtime_ns for file in files} == before
    assert (output / "REPRODUCTION.md").read_text(encoding="utf-8") == text
