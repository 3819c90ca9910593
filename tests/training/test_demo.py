"""The demo model's pipeline, in small: from nothing to a published artefact, and on again."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.videoclip.manifest import VARIANT_FILES, LambdaPoint, load_manifest, verify_files
from training import demo
from training.config import ConfigError, load_config
from training.data.motion_world import sets
from training.demo_config import DemoConfig
from training.selection_rule import SelectionError
from training.workshop import Workshop

CONFIG = Path(demo.__file__).parent / "configs" / "demo.toml"

SMALL = {
    "pictures = 32000": "pictures = 48",
    "source_videos = 16000": "source_videos = 24",
    "validation_videos = 384": "validation_videos = 8",
    "test_videos = 768": "test_videos = 8",
    "forgetting_points = 3.0": "forgetting_points = 100.0",  # it has learnt nothing
    "steps = 3000": "steps = 2",
    "batch_size = 256": "batch_size = 16",
    "batch_size = 32": "batch_size = 4",
    "snapshots = 20": "snapshots = 2",
    "layers = 4": "layers = 1",
    "layers = 2": "layers = 1",
}


def _small(text: str) -> str:
    lines = []
    for line in text.splitlines():
        for old, new in SMALL.items():
            if line.startswith(old):
                line = new
        if line.startswith("steps = ") and line != "steps = 2":
            line = "steps = 3"
        lines.append(line)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's own configuration, with everything small."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(_small(CONFIG.read_text(encoding="utf-8")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with work/, store/ and what was printed, after one whole run."""
    folder = tmp_path_factory.mktemp("demo")
    with (
        (folder / "out.txt").open("w", encoding="utf-8") as out,
        contextlib.redirect_stdout(out),
    ):
        code = demo.main(
            config=config,
            work=folder / "work",
            store=folder / "store",
            samples=folder / "samples",
        )
    assert code == 0
    return folder


def _artefact(store: Path) -> Path:
    (found,) = (path for path in (store / "demo").iterdir() if path.is_dir())
    return found


def test_the_configuration_of_the_demo_can_be_read() -> None:
    """The committed configuration fits its schema."""
    assert load_config(CONFIG, DemoConfig).world.pixels > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_publishes_a_whole_artefact(made: Path) -> None:
    """All stages run, and what comes out verifies, says its curve, rule and provenance."""
    folder = _artefact(made / "store")
    manifest = load_manifest(folder)
    verify_files(folder, manifest)
    assert manifest.recipe == "open-vclip"
    assert [point.clip_weight for point in manifest.curve][0::10] == [0.0, 1.0]
    assert set(manifest.curve[0].scores) == {*sets.CLASS_SETS, demo.MIXED}
    assert "unseen-attributes" in manifest.clip_weight_rule
    assert manifest.provenance["command"] == "make demo-model"
    assert len(manifest.background_labels) >= 20
    assert not manifest.text_tower_tuned
    assert {path.suffix for path in (made / "samples").iterdir()} == {".mp4"}
    # Of graphs in fewer bits only those are there that lose little on every set.
    printed = (made / "out.txt").read_text(encoding="utf-8")
    assert all(f"{name}: loses at most" in printed for name in VARIANT_FILES)
    left_out = {name for name in VARIANT_FILES if f"{name}: " in "".join(refused(printed))}
    assert {variant.name for variant in manifest.variants} == set(VARIANT_FILES) - left_out
    for variant in manifest.variants:
        assert set(variant.top1_loss) == {*sets.CLASS_SETS, demo.MIXED}


def refused(printed: str) -> list[str]:
    """The lines about what is not published."""
    return [line for line in printed.splitlines() if line.endswith("not published")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_second_run_does_nothing_again(made: Path, config: Path) -> None:
    """Stages whose results are there are not repeated; the same weights come out."""
    before = {path: path.stat().st_mtime_ns for path in (made / "work").rglob("*.safetensors")}
    first = _artefact(made / "store").name
    demo.main(config=config, work=made / "work", store=made / "store")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert _artefact(made / "store").name == first


@pytest.mark.slow
def test_a_folder_of_another_configuration_is_refused(
    made: Path, config: Path, tmp_path: Path
) -> None:
    """Results of two configurations are never mixed."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(made / "work" / "config.json", work)
    other = replace(load_config(config, DemoConfig), seed=7)
    with pytest.raises(ConfigError, match="another configuration"):
        Workshop(work, other).claim()


def test_lambda_is_chosen_within_three_points_of_clip() -> None:
    """The best mean among those at most three points below CLIP frame by frame; none: an error."""

    def point(weight: float, source: float, attributes: float) -> LambdaPoint:
        scores = {
            "source": source,
            "unseen-pairs": source,
            "unseen-nouns": source,
            "unseen-attributes": attributes,
        }
        return LambdaPoint(clip_weight=weight, scores=scores, spread=dict.fromkeys(scores, 0.0))

    own = {"unseen-attributes": 90.0}
    points = (point(0.0, 95, 50), point(0.5, 90, 87.1), point(1.0, 40, 89))
    choice = demo.choose_clip_weight(points, own=own, forgetting=3.0)
    assert choice.clip_weight == 0.5
    assert "90.0 %" in choice.reason
    forgetful = (point(0.0, 95, 50), point(0.5, 90, 86.9), point(1.0, 40, 89))
    assert demo.choose_clip_weight(forgetful, own=own, forgetting=3.0).clip_weight == 1.0
    with pytest.raises(SelectionError):
        demo.choose_clip_weight(forgetful[:2], own=own, forgetting=3.0)


def test_background_labels_use_every_word_equally() -> None:
    """Each noun and each verb stands in the background equally often."""
    labels = demo.background_labels()
    assert len(set(labels)) == len(labels)
    nouns = [label.split()[0] for label in labels]
    verbs = [label.split(maxsplit=1)[1] for label in labels]
    assert len({nouns.count(noun) for noun in nouns}) == 1
    assert len({verbs.count(verb) for verb in verbs}) == 1


def test_seeds_are_summed_up_by_mean_and_sample_deviation() -> None:
    """One point of the curve over three seeds."""
    points = [
        LambdaPoint(clip_weight=0.5, scores={"source": score}, spread={"source": 0.0})
        for score in (80.0, 82.0, 87.0)
    ]
    summed = demo.over_seeds(points)
    assert summed.clip_weight == 0.5
    assert summed.scores == {"source": 83.0}
    assert summed.spread["source"] == pytest.approx(np.std([80, 82, 87], ddof=1))
