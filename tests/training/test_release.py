"""Graphs in fewer bits by the commands that a user types: measured, and never published unseen."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from service.videoclip.manifest import (
    VARIANT_FILES,
    Manifest,
    VariantName,
    load_manifest,
    verify_files,
)
from tests.training.importers.authors import fine_tuned
from tests.training.tiny import FRAMES
from tests.training.tiny_run import LABELS, draw_videos, write_config, write_start
from training import artefact
from training.__main__ import main
from training.config import ConfigError
from training.evaluate.inputs import EvaluationList, open_plan
from training.start import open_start
from training.variant_sets import some_of, variant_sets
from training.variants import write_variants

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_export")]

FILES = {file for files in VARIANT_FILES.values() for file in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished run; called with keys of the table publish, gives its configuration."""
    folder = tmp_path_factory.mktemp("release")
    videos, clip = draw_videos(folder, count=12, broken=1), write_start(folder / "clip")

    def configuration(**publish: object) -> Path:
        keys = {"name": "few", "licence": "Apache-2.0", "store": folder / "store", **publish}
        return write_config(
            folder / "run.toml",
            run=folder / "run",
            clip=clip,
            videos=videos,
            recipe="[open_vclip]\nclip_weight = 0.4",
            top={"frames": FRAMES},
            publish=keys,
            **{"data.evaluation": {"seen": videos}},
        )

    assert main(["train", str(configuration())]) == 0
    return configuration


def published(config: Path) -> tuple[Path, Manifest]:
    """The only artefact in the store, put there by `publish`."""
    assert main(["publish", str(config), "--replace"]) == 0
    found = [path for path in (config.parent / "store/few").iterdir() if path.name[0] != "."]
    folder = max(found, key=lambda path: (path / "manifest.json").stat().st_mtime_ns)
    manifest = load_manifest(folder)
    verify_files(folder, manifest)
    return folder, manifest


@pytest.mark.parametrize("names", [("fp16", "int8"), ("int8",), ()])
def test_publish_adds_the_variants_that_the_configuration_names(
    trained: Callable[..., Path], names: tuple[VariantName, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the loss on every evaluation set; no other form is in the folder."""
    folder, manifest = published(trained(variants=names, variant_loss=100.0, variant_videos=12))
    assert tuple(variant.name for variant in manifest.variants) == names
    for variant in manifest.variants:
        assert variant.clip_weights == (0.0, 0.4, 1.0)
        assert variant.bound == 100.0
        # Twelve videos, of which the broken last one of the list is none.
        assert set(variant.top1_loss) == {"seen"}
        assert abs(variant.top1_loss["seen"]) <= 100.0
    wanted = {file for name in names for file in VARIANT_FILES[name]}
    assert {path.name for path in folder.iterdir()} & FILES == wanted
    out = capsys.readouterr().out
    assert [name for name in VARIANT_FILES if f"{name}: loses at most" in out] == list(names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run.json: cannot be used"),
        ("run.json", "[]", "run.json: cannot be used"),
        ("run.json", "{}", "run.json: cannot be used: KeyError("),
        ("tuned.safetensors", "cut", "tuned.safetensors: not a whole safetensors file"),
        ("clip.safetensors", None, "clip.safetensors: no such file"),
    ],
)
def test_a_damaged_run_is_one_line(
    trained: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    message: str,
) -> None:
    """For what publishes it and for what measures it: the file, and what is wrong with it."""
    config = trained()
    run = shutil.copytree(config.parent / "run", tmp_path / "run")
    (run / name).unlink() if content is None else (run / name).write_text(content)
    config.write_text(config.read_text().replace(str(config.parent / "run"), str(run), 1))
    evaluating = ["evaluate", str(run), str(config.parent / "train.csv")]
    for arguments in (["publish", str(config)], evaluating):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {run}/{message}")
        assert error.count("\n") == 1


def test_videos_that_the_graphs_are_not_compared_on_are_named(
    trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ones of the training list are: one that cannot be decoded is told."""
    config = trained()
    listed = config.parent / "train.csv"
    head, *rows = listed.read_text().splitlines()
    broken = listed.with_name("broken_first.csv")
    broken.write_text("\n".join([head, rows[-1], *rows[:-1]]))
    text = config.read_text().replace(f'train = "{listed}"', f'train = "{broken}"')
    config.write_text(text)
    published(config)
    assert f"left out: {config.parent / 'videos/12.mp4'}: " in capsys.readouterr().out


def test_a_variant_above_the_bound_is_left_out_with_a_line(
    trained: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The other one stays; the artefact is published all the same."""

    def sabotaged(folder: Path, names: tuple[VariantName, ...]) -> None:
        write_variants(folder, names)
        path = folder / VARIANT_FILES["int8"][0]
        model = onnx.load(path, load_external_data=False)
        for node in model.graph.node:
            node.output[:] = ["before" if o == "frame_embeddings" else o for o in node.output]
        model.graph.node.append(helper.make_node("Neg", ["before"], ["frame_embeddings"]))
        path.write_bytes(model.SerializeToString())

    monkeypatch.setattr(artefact, "write_variants", sabotaged)
    folder, manifest = published(trained(variants=("fp16", "int8"), variant_loss=20.0))
    assert [variant.name for variant in manifest.variants] == ["fp16"]
    assert {path.name for path in folder.iterdir()} & FILES == set(VARIANT_FILES["fp16"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("int8")]
    assert line.endswith("points of top-1, on seen: above the bound of 20, not published")


def test_import_measures_on_the_lists_of_the_command(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--evaluate` adds both forms with their losses by list; a wrong bound is one line."""
    (clip,) = tiny_artefact.glob("tiny/*")
    torch.save(fine_tuned(), tmp_path / "tuned.pt")
    videos = draw_videos(tmp_path, count=4)
    arguments = ["import", "plain_clip", str(tmp_path / "tuned.pt"), "--clip", str(clip)]
    arguments += ["--temporal", "neighbour", "--frames", str(FRAMES), "--name", "foreign"]
    arguments += ["--store", str(tmp_path / "store"), "--evaluate", str(videos)]
    assert main([*arguments, "--variant-loss", "-1"]) == 2
    assert "--variant-loss -1: below 0" in capsys.readouterr().err
    assert main([*arguments, "--variant-loss", "100"]) == 0
    (folder,) = (tmp_path / "store/foreign").iterdir()
    variants = load_manifest(folder).variants
    assert [variant.name for variant in variants] == list(VARIANT_FILES)
    assert {name for variant in variants for name in variant.top1_loss} == {str(videos)}


def test_a_set_is_bounded_and_spread(tmp_path: Path) -> None:
    """So many videos at equal distances, their labels by name; sets that share frames still do."""
    plan = open_plan(EvaluationList(videos=(draw_videos(tmp_path, count=12, broken=1),)))
    start = open_start(write_start(tmp_path / "clip"))
    lines: list[str] = []
    sets = variant_sets(
        {"seen": plan},
        sampling=start.manifest.sampling,
        preprocessing=start.preprocessing,
        videos=4,
        report=lines.append,
    )
    seen = sets["seen"]
    assert seen.frames.shape == (4, 1, FRAMES, 40, 40, 3)
    # Of thirteen rows 0, 3, 6 and 9; a dark square has an even number.
    assert [seen.classes[label] for label in seen.labels] == [LABELS[i % 2] for i in (0, 3, 6, 9)]
    assert (seen.frames.mean(axis=(1, 2, 3, 4, 5)) > 127).tolist() == [False, True, False, True]
    assert not lines
    fewer = some_of({"one": seen, "other": seen}, videos=2)
    assert fewer["one"].frames is fewer["other"].frames
    assert fewer["one"].labels.tolist() == seen.labels[[0, 2]].tolist()


def test_sets_without_labels_are_no_measure(
    trained: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Retrieval alone, or no set at all, is refused before anything is exported."""
    videos = draw_videos(tmp_path, count=2)
    plan = open_plan(EvaluationList(videos=(videos,), protocol="retrieval"))
    start = open_start(write_start(tmp_path / "clip"))
    with pytest.raises(ConfigError, match="variants: none of pairs has labels"):
        variant_sets(
            {"pairs": plan}, sampling=start.manifest.sampling, preprocessing=start.preprocessing
        )
    config = trained(variants=("int8",))
    lines = config.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("[data.evaluation]", "seen = "))]
    config.write_text("\n".join(kept), encoding="utf-8")
    assert main(["publish", str(config)]) == 2
    assert "data.evaluation: names no list to measure on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"variants": ["int4"]}, "publish.variants[0] = 'int4': one of 'fp16', 'int8'"),
        ({"variants": ["int8", "int8"]}, "publish.variants: int8, int8: one is named twice"),
        ({"variant_loss": -0.5}, "variant_loss = -0.5: must not be negative"),
        ({"variant_videos": 0}, "variant_videos = 0: must be above 0"),
    ],
)
def test_a_table_that_makes_no_sense_is_one_line(
    trained: Callable[..., Path],
    keys: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the key and the value."""
    assert main(["publish", str(trained(**keys))]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
