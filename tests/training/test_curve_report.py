"""The curve's files: the same bytes for the same curve, and what `publish` reads back."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from service.videoclip.manifest import LambdaPoint, load_manifest
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from training.__main__ import main
from training.curve_picture import Line, draw_lines
from training.curve_report import (
    CURVE_FILE,
    NO_RULE,
    PICTURE_FILE,
    TABLE_FILE,
    CurveError,
    choose_and_write,
    draw_curve,
    read_curve,
    read_points,
    write_unchosen,
)
from training.selection_rule import SelectionError, SelectionRule

RULE = SelectionRule(maximise=("open",), rule="harmonic_mean", closed_set="closed")
POINTS = tuple(
    LambdaPoint(
        clip_weight=weight,
        scores={"closed": closed, "open": zero_shot, "other": 50.0},
        spread={"closed": 0.5, "open": 1.0, "other": 0.0},
    )
    for weight, closed, zero_shot in ((0.0, 90.0, 40.0), (0.5, 80.0, 65.0), (1.0, 30.0, 60.0))
)
DOCUMENT = {"points": [point.model_dump(mode="json") for point in POINTS], "models": [{}, {}, {}]}


def test_the_three_files_say_the_same(tmp_path: Path) -> None:
    """Rule, choice and points in JSON; the table with its mean, spread and star; the picture."""
    choice = choose_and_write(tmp_path, DOCUMENT, RULE)
    assert choice.clip_weight == 0.5
    written = read_curve(tmp_path)
    assert written["choice"] == {"clip_weight": 0.5, "reason": choice.reason}
    assert written["rule"]["rule"] == "harmonic_mean"
    assert read_points(tmp_path) == POINTS
    table = (tmp_path / TABLE_FILE).read_text()
    assert "| 0.5 | 80.0 ± 0.5 | 65.0 ± 1.0 | 50.0 ± 0.0 | ★ |" in table
    assert "over 3 seeds" in table
    assert f"★ {choice.reason}." in table
    assert f"]({PICTURE_FILE})" in table


def test_the_picture_has_a_line_for_each_target_and_a_star(tmp_path: Path) -> None:
    """λ stands beside the points once, and text is text."""
    draw_curve(POINTS, tmp_path / "curve.svg", rule=RULE, chosen=0.5)
    root = ElementTree.parse(tmp_path / "curve.svg").getroot()  # noqa: S314 - our own file
    texts = [
        "".join(element.itertext()).strip() for element in root.iter() if "text" in element.tag
    ]
    for name in ("open", "other", "closed (closed set), %", "zero-shot, %"):
        assert name in texts
    svg = (tmp_path / "curve.svg").read_text()
    assert len(re.findall(r"<use [^>]*stroke: #000000", svg)) >= 2  # the stars' black edges
    assert texts.count("0.5") == 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_picture_is_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    """Byte for byte: a committed picture changes only with its curve."""
    for name in ("a", "b"):
        draw_curve(POINTS, tmp_path / f"{name}.{suffix}", rule=RULE, chosen=0.5)
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]
    draw_curve(POINTS, tmp_path / f"a.{suffix}", rule=RULE, chosen=1.0)
    assert (tmp_path / f"a.{suffix}").read_bytes() != first


def test_without_a_closed_set_scores_are_drawn_over_lambda(tmp_path: Path) -> None:
    """All sets, the source among them."""
    rule = SelectionRule(maximise=("open",))
    draw_curve(POINTS, tmp_path / "curve.svg", rule=rule, chosen=0.5)
    text = (tmp_path / "curve.svg").read_text()
    assert "λ, the share of CLIP" in text
    assert ">closed<" in text


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Only what is drawn the same each time."""
    line = Line(name="a", points=POINTS, y="open", x="closed")
    with pytest.raises(ValueError, match=r"neither \.svg nor \.png"):
        draw_lines([line], tmp_path / "curve.pdf", x_label="x", y_label="y")


def test_a_curve_without_choice_is_kept(tmp_path: Path) -> None:
    """Hours of measuring are not lost because a rule asks too much."""
    rule = SelectionRule(maximise=("open",), at_least={"closed": 95.0})
    with pytest.raises(SelectionError, match="closed needs 95"):
        choose_and_write(tmp_path, DOCUMENT, rule)
    assert read_curve(tmp_path)["choice"] is None
    assert "No λ satisfies the rule." in (tmp_path / TABLE_FILE).read_text()
    assert choose_and_write(tmp_path, read_curve(tmp_path), RULE).clip_weight == 0.5


def test_a_curve_without_a_rule_chooses_nothing(tmp_path: Path) -> None:
    """All sets over λ, no star, and a rule can still be applied to it."""
    write_unchosen(tmp_path, DOCUMENT)
    written = read_curve(tmp_path)
    assert (written["rule"], written["choice"]) == (None, None)
    table = (tmp_path / TABLE_FILE).read_text()
    assert NO_RULE in table
    assert "★" not in table
    assert "λ, the share of CLIP" in (tmp_path / PICTURE_FILE).read_text()
    assert choose_and_write(tmp_path, written, RULE).clip_weight == 0.5


@pytest.mark.parametrize("content", [None, "{", "[]", '{"points": [{"clip_weight": 2}]}'])
def test_a_file_that_is_no_curve_is_one_line(tmp_path: Path, content: str | None) -> None:
    """It says which command writes one."""
    if content is not None:
        (tmp_path / CURVE_FILE).write_text(content)
    with pytest.raises(CurveError, match="python -m training select") as caught:
        read_points(tmp_path)
    assert "\n" not in str(caught.value)


CONFIG = """
run = "{folder}/run"
clip = "{clip}"
frames = 8
template_set = "motion-world"

[data]
train = "{folder}/closed"

[data.evaluation]
closed = "{folder}/closed"

[data.evaluation.halves]
videos = ["{folder}/closed"]
protocol = "base-to-novel"
classes = ["{folder}/base.txt", "{folder}/novel.txt"]

[data.evaluation.pairs]
videos = ["{folder}/pairs.csv"]
protocol = "retrieval"

[optimisation]
steps = 1

[open_vclip]

[select]
rule = "{rule}"
closed_set = "closed"
maximise = ["halves", "pairs"]
"""


@pytest.fixture
def run_config(tmp_path: Path) -> Path:
    """A finished run whose ends are the demo model's, and videos to measure it on."""
    (artefact,) = (REPOSITORY / "model_store" / "demo").iterdir()
    manifest = load_manifest(artefact)
    run = tmp_path / "run"
    run.mkdir()
    for end in ("clip", "tuned"):
        shutil.copy(artefact / f"weights_{end}.safetensors", run / f"{end}.safetensors")
    facts = {
        "recipe": "open_vclip",
        "architecture": manifest.architecture,
        "sampling": manifest.sampling.model_dump(mode="json"),
        "preprocessing": manifest.preprocessing.model_dump(mode="json"),
        "pooling": manifest.pooling,
        "clip": "demo",
        "config": {
            "clip": str(artefact),
            "frames": 8,
            "template_set": "motion-world",
            "seed": 7,
        },
    }
    (run / "run.json").write_text(json.dumps(facts))
    rows = ["path,caption"]
    for i, name in enumerate(("red circle", "blue square")):
        (tmp_path / "closed" / name).mkdir(parents=True)
        draw_video(tmp_path / "closed" / name / "0.mp4", seconds=0.5, width=80 + 40 * i)
        rows.append(f"closed/{name}/0.mp4,a {name}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    (tmp_path / "base.txt").write_text("red circle\n")
    (tmp_path / "novel.txt").write_text("Blue Square\n")
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=tmp_path, clip=artefact, rule="harmonic_mean"))
    return config


def test_select_measures_sets_of_every_kind_and_chooses_again(
    run_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list, base-to-novel and retrieval in one sweep; another rule needs no second one."""
    assert main(["select", str(run_config), "--steps", "2", "--views", "2"]) == 0
    printed = capsys.readouterr().out
    assert "largest harmonic mean of closed and the mean over halves, pairs: λ = " in printed
    folder = run_config.parent / "run"
    written = read_curve(folder)
    assert [point["clip_weight"] for point in written["points"]] == [0.0, 0.5, 1.0]
    assert written["sets"]["halves"]["protocol"] == "base-to-novel/any v1"
    assert written["models"][0]["seed"] == 7
    assert written["sparse_views"] == 2
    assert all(point["scores"]["halves"] == 100.0 for point in written["points"])
    assert (folder / PICTURE_FILE).is_file()

    arguments = ["evaluate", str(folder), str(run_config.parent / "closed"), "--views", "2"]
    assert main([*arguments, "--clip-weight", "0.5", "--json", str(folder / "found.json")]) == 0
    (alone,) = json.loads((folder / "found.json").read_text())["results"]
    assert alone["headline"] == written["points"][1]["scores"]["closed"]
    capsys.readouterr()

    run_config.write_text(run_config.read_text().replace("harmonic_mean", "knee"))
    assert main(["select", str(run_config), "--again"]) == 0
    assert capsys.readouterr().out.startswith("knee of closed against")
    again = read_curve(folder)
    assert again["rule"]["rule"] == "knee"
    assert again["points"] == written["points"]


def another_run(run: Path, **facts: Any) -> Path:
    """A copy of a run with other facts."""
    copy = shutil.copytree(run, run.with_name(f"other-{len(list(run.parent.iterdir()))}"))
    written = json.loads((copy / "run.json").read_text())
    written["config"]["seed"] = facts.pop("seed", written["config"]["seed"])
    (copy / "run.json").write_text(json.dumps({**written, **facts}))
    return copy


def test_runs_with_other_seeds_make_a_mean(
    run_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sweep; a run twice, or of another system, is refused: its spread would say nothing."""
    run = run_config.parent / "run"
    select = ["select", str(run_config), "--steps", "1", "--run"]
    assert main([*select, str(another_run(run, seed=8))]) == 0
    assert "mean ± standard deviation over 2 seeds" in capsys.readouterr().out
    assert [model["seed"] for model in read_curve(run)["models"]] == [7, 8]
    for other, message in (
        (another_run(run), f"has seed 7, as {run} has"),
        (another_run(run, seed=9, recipe="vifi_clip"), "its recipe is 'vifi_clip', not"),
        (another_run(run, seed=9, clip="other"), "its clip is 'other', not 'demo'"),
    ):
        assert main([*select, str(other)]) == 2
        error = capsys.readouterr().err
        assert f"error: --run {other}: " in error
        assert message in error


@pytest.mark.parametrize(
    ("find", "replace", "arguments", "message"),
    [
        ('rule = "harmonic_mean"', 'rule = "best"', [], "select.rule = 'best': one of"),
        ('closed_set = "closed"', "", [], "closed_set: missing, and rule harmonic_mean needs it"),
        ("[select]", "[publish]", [], "unknown key publish.rule"),
        ('"pairs"]', '"nowhere"]', ["--steps", "1"], "not measured: nowhere"),
        ('/run"', '/other"', [], "no finished run"),
        ("", "", ["--steps", "0"], "--steps 0: below 1"),
        ("", "", ["--again"], "curve.json: missing"),
    ],
)
def test_what_cannot_be_selected_is_one_line(
    run_config: Path,
    find: str,
    replace: str,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the configuration, the run or the arguments."""
    run_config.write_text(run_config.read_text().replace(find, replace))
    assert main(["select", str(run_config), *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_run_without_a_rule_is_measured(
    run_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The curve is there and nothing is chosen; there is no rule to apply again."""
    run_config.write_text(run_config.read_text().partition("[select]")[0])
    assert main(["select", str(run_config), "--steps", "1"]) == 0
    assert NO_RULE in capsys.readouterr().out
    written = read_curve(run_config.parent / "run")
    assert [point["clip_weight"] for point in written["points"]] == [0.0, 1.0]
    assert main(["select", str(run_config), "--again"]) == 2
    assert "missing table select: --again applies its rule" in capsys.readouterr().err
