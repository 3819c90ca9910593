"""Text4Vis and Open-VCLIP++ by their commands: train, evaluate on own classes, publish or not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from service.videoclip.manifest import load_manifest
from tests.training.tiny_run import LABELS, draw_videos, write_config, write_start
from training.__main__ import main
from training.captioning.records import Records
from training.frozen_classifiers import CLASSIFIER_FILE, load_classifier

PUBLISH = {"name": "tuned", "licence": "Apache-2.0"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artefact to start from, and videos."""
    folder = tmp_path_factory.mktemp("made")
    write_start(folder / "start")
    draw_videos(folder)
    return folder


def configure(made: Path, folder: Path, *, recipe: str, **tables: Any) -> Path:
    """A configuration of 8 steps."""
    return write_config(
        folder / "run.toml",
        run=folder / "run",
        clip=made / "start",
        videos=made / "train.csv",
        recipe=recipe,
        **{"optimisation": {"steps": 8, "peak_learning_rate": 3e-3}}
        | {"publish": {**PUBLISH, "store": str(folder / "store")}}
        | tables,
    )


@pytest.mark.parametrize("kind", ["lda", "random-normal", "random-orthogonal"])
def test_rows_that_are_no_texts(
    made: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is evaluated on its own classes with its own rows, and is not published."""
    lda = "\nlda_videos_per_class = 4" if kind == "lda" else ""
    recipe = f'[text4vis]\nclassifier = "{kind}"\ntemporal_head = "t1d"{lda}'
    config = configure(made, tmp_path, recipe=recipe)
    assert main(["train", str(config)]) == 0
    frozen = load_classifier(tmp_path / "run" / CLASSIFIER_FILE)
    assert (frozen.kind, frozen.classes) == (kind, LABELS[::-1])
    found = tmp_path / "found.json"
    run, videos = str(tmp_path / "run"), str(made / "train.csv")
    assert main(["evaluate", run, videos, "--json", str(found)]) == 0
    assert f'"{kind}"' in found.read_text()
    capsys.readouterr()

    assert main(["publish", str(config)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: text4vis.classifier = '{kind}': cannot be published")
    assert error.count("\n") == 1
    assert not (tmp_path / "store").exists()

    other = tmp_path / "other.csv"
    other.write_text(f"path,label\n{made}/videos/0.mp4,a bird\n")
    assert main(["evaluate", run, str(other)]) == 2
    assert f"'a bird': none of the 2 classes of the {kind} classifier" in capsys.readouterr().err


@pytest.mark.slow
def test_clip_s_rows_are_served(made: Path, tmp_path: Path) -> None:
    """The default classifier is published with its temporal head, at the paper's λ."""
    config = configure(made, tmp_path, recipe='[text4vis]\ntemporal_head = "token-t1d"')
    assert main(["train", str(config)]) == 0
    assert main(["publish", str(config)]) == 0
    (artefact,) = (tmp_path / "store" / "tuned").iterdir()
    manifest = load_manifest(artefact)
    assert manifest.recipe == "text4vis"
    assert manifest.architecture["temporal_head"] == "token-t1d"
    assert manifest.pooling == "mean_then_normalize"
    assert manifest.default_clip_weight == 0.0
    other = tmp_path / "other.csv"
    other.write_text(f"path,label\n{made}/videos/0.mp4,a bird\n{made}/videos/1.mp4,a bright square")
    assert main(["evaluate", str(artefact), str(other)]) == 0


def test_another_start_has_the_same_rows(made: Path, tmp_path: Path) -> None:
    """Discriminants depend on CLIP and the list alone: a run that goes on fits the same again."""
    recipe = '[text4vis]\nclassifier = "lda"\nlda_videos_per_class = 3\ntemporal_head = "none"'
    rows = []
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert main(["train", str(configure(made, folder, recipe=recipe))]) == 0
        rows.append(load_classifier(folder / "run" / CLASSIFIER_FILE).rows)
    assert torch.equal(rows[0], rows[1])


def test_captions_from_a_file(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that `caption` writes is learnt from; videos without one are told and logged."""
    captions = tmp_path / "captions.jsonl"
    with Records(captions, field="caption", settings={}) as records:
        for i in range(9):
            records.add(f"videos/{i}.mp4", f"The video shows {LABELS[i % 2]}.")
    bare = tmp_path / "bare.csv"
    rows = (f"{made}/videos/{i}.mp4,{LABELS[i % 2]}" for i in range(12))
    bare.write_text("\n".join(("path,label", *rows)) + "\n")
    config = configure(
        made,
        tmp_path,
        recipe="[open_vclip_pp]\ncaption_weight = 2.0",
        data={"train": str(bare), "captions": str(captions), "workers": 0},
        regularisation={"interpolation_coefficient": 0.5, "snapshots": 2},
    )
    assert main(["train", str(config)]) == 0
    assert "captions: 9 of 12 videos have one" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run/steps.jsonl").read_text().splitlines()]
    shares = [_number(line, "captioned") for line in lines]
    assert len(shares) == 8
    # Two passes over the videos and a part of a third: some batches have one without a caption.
    assert min(shares) < 1.0
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert any(_number(line, "captions") > 0 for line in lines)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["architecture"]["temporal"] == "neighbour"


def test_without_captions_it_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the key."""
    bare = tmp_path / "bare.csv"
    bare.write_text(f"path,label\n{made}/videos/0.mp4,a\n{made}/videos/1.mp4,b\n")
    config = configure(made, tmp_path, recipe="[open_vclip_pp]", data={"train": str(bare)})
    assert main(["train", str(config)]) == 2
    assert "data.captions" in capsys.readouterr().err


def _number(line: dict[str, Any], name: str) -> float:
    """A part of the loss in a line of the log."""
    value: float = line["parts"][name] if "parts" in line else line[name]
    return value
