"""`python -m training train`: from a list of encoded videos to a finished run, for every recipe."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.tiny_run import draw_videos, write_config
from training.__main__ import main

RECIPES = {
    "open_vclip": "[open_vclip]",
    "clip": '[open_vclip]\ntemporal = "none"',
    "open_vclip_pp": "[open_vclip_pp]",
    "vifi_clip": "[vifi_clip]",
    "prompts": "[vifi_clip]\nprompts = { vision = 2, vision_depth = 2, text = 2, text_depth = 1 }",
    "fitclip": '[fitclip]\nunlabelled_texts = "captions"',
    "text4vis": '[text4vis]\ntemporal_head = "t-trans"',
    "lda": '[text4vis]\nclassifier = "lda"\nlda_videos_per_class = 3',
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_by_its_table(
    name: str, start: Path, videos: Path, tmp_path: Path
) -> None:
    """Losses are finite, tuned weights move, both ends have the same names, CLIP's end is CLIP."""
    run = tmp_path / "run"
    path = write_config(
        tmp_path / "run.toml",
        run=run,
        clip=start,
        videos=videos,
        recipe=RECIPES[name],
        data={"unlabelled": str(videos)},
        optimisation={"steps": 3},
    )
    assert main(["train", str(path)]) == 0
    facts = json.loads((run / "run.json").read_text())
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert len(lines) == facts["steps"] == 3
    assert all(line["loss"] < 1e4 and line["gradient_norm"] > 0 for line in lines)
    clip, tuned, begun = (
        load_file(file)
        for file in (
            run / "clip.safetensors",
            run / "tuned.safetensors",
            start / "weights_clip.safetensors",
        )
    )
    assert set(clip) == set(tuned)
    assert all(torch.equal(clip[weight], tensor) for weight, tensor in begun.items())
    assert any(not torch.equal(tuned[weight], tensor) for weight, tensor in clip.items()) != (
        name == "prompts"  # which are the tuned ones at both ends
    )
    assert (set(tuned) == set(begun)) == (name not in ("prompts", "text4vis", "lda"))
    if name == "open_vclip_pp":
        assert {"classes", "captions"} <= set(lines[0])


def test_what_a_run_leaves_behind(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its configuration, replaced videos, and every step, as JSON and for TensorBoard."""
    run = tmp_path / "run"
    path = write_config(
        tmp_path / "run.toml",
        run=run,
        clip=start,
        videos=videos,
        regularisation={"interpolation_coefficient": 0.5},
    )
    assert main(["train", str(path)]) == 0
    assert "left out" in capsys.readouterr().out
    assert (run / "config.toml").read_bytes() == path.read_bytes()
    facts = json.loads((run / "run.json").read_text())
    assert facts["classes"] == ["a bright square", "a dark square"]
    assert facts["videos"] == 9
    assert len(facts["failed"]) == 1
    assert facts["failed"][0].startswith(str(videos.parent / "videos/8.mp4"))
    assert facts["pooling"] == "normalize_then_mean"
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    for tag in ("loss", "interpolated_loss", "gradient_norm", "learning_rate"):
        shown = [(event.step, event.value) for event in board.Scalars(f"train/{tag}")]
        assert shown == [(line["step"], pytest.approx(line[tag])) for line in lines]
    assert len(board.Scalars("speed/images_per_second")) == 6


def test_the_best_weights_are_those_of_the_lowest_validation_loss(
    start: Path, videos: Path, tmp_path: Path
) -> None:
    """With a rate that ruins the weights, what is kept is from before."""
    run = tmp_path / "run"
    path = write_config(
        tmp_path / "run.toml",
        run=run,
        clip=start,
        videos=videos,
        optimisation={"steps": 6, "peak_learning_rate": 0.5, "warmup_share": 0.9},
        validation={"videos": str(videos), "every": 2},
    )
    assert main(["train", str(path)]) == 0
    facts = json.loads((run / "run.json").read_text())
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    losses = {event.step + 1: event.value for event in board.Scalars("validation/loss")}
    assert sorted(losses) == [2, 4, 6]
    assert facts["validation_loss"] == pytest.approx(min(losses.values()))
    lines = [json.loads(line) for line in (run / "validations.jsonl").read_text().splitlines()]
    assert {line["step"] + 1: line["loss"] for line in lines} == pytest.approx(losses)
    same = all(
        torch.equal(tensor, load_file(run / "last.safetensors")[weight])
        for weight, tensor in load_file(run / "tuned.safetensors").items()
    )
    assert same == (min(losses, key=lambda step: losses[step]) == 6)


def test_validation_videos_that_cannot_be_decoded_are_listed(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once each, however often they are looked at: what stands in their places changes the loss."""
    run = tmp_path / "run"
    path = write_config(
        tmp_path / "run.toml",
        run=run,
        clip=start,
        videos=draw_videos(tmp_path, count=4),
        optimisation={"steps": 2, "batch_size": 3},
        validation={"videos": str(videos), "every": 1},
    )
    assert main(["train", str(path)]) == 0
    (failed,) = json.loads((run / "run.json").read_text())["failed"]
    assert failed.startswith(str(videos.parent / "videos/8.mp4"))
    assert capsys.readouterr().out.count("left out") == 1


def test_a_training_that_diverges_says_where(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the step, exit code 2, and no finished run."""
    path = write_config(
        tmp_path / "run.toml",
        run=tmp_path / "run",
        clip=start,
        videos=videos,
        optimisation={"steps": 50, "peak_learning_rate": 1e30, "warmup_share": 0.0},
    )
    assert main(["train", str(path)]) == 2
    assert " of 50: " in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run/run.json").exists()


@pytest.mark.parametrize(
    ("recipe", "tables", "message"),
    [
        ("[open_vclip]", {"optimisation": {"accumulate": 3}}, "optimisation.batch_size = 4"),
        ("[fitclip]", {}, "missing key data.unlabelled"),
        ("[open_vclip]", {"data": {"train": "/nowhere.csv"}}, "/nowhere.csv"),
        ("[open_vclip]", {"top": {"clip": "/nowhere"}}, "manifest.json"),
        ("[open_vclip]", {"preprocessing": {"resize_size": 8}}, "resize_size: 8"),
        (
            "[text4vis]",
            {"regularisation": {"l2_to_clip": 0.1}},
            "temporal_head",
        ),
        (
            "[open_vclip]",
            {"regularisation": {"snapshots": 2}, "validation": {"videos": "x"}},
            "the best ones or the mean, not both",
        ),
        (
            "[open_vclip]",
            {"publish": {"name": "ViT-B-16", "licence": "MIT"}},
            "publish: name = ViT-B-16: 1 to 64 lower-case letters",
        ),
        (
            "[open_vclip]",
            {"select": {"maximise": ["seen"]}},
            "data.evaluation does not name, so they are not measured: seen",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    recipe: str,
    tables: dict[str, dict[str, Any]],
    message: str,
    start: Path,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the first step, and without a folder left behind."""
    path = write_config(
        tmp_path / "run.toml",
        run=tmp_path / "run",
        clip=start,
        videos=videos,
        recipe=recipe,
        **tables,
    )
    assert main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_several_revisions_are_not_guessed(
    start: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`clip` may name a model with one revision; of several, one has to be named."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "one").symlink_to(start)
    path = write_config(
        tmp_path / "run.toml",
        run=tmp_path / "run",
        clip=model,
        videos=videos,
        optimisation={"steps": 1},
    )
    assert main(["train", str(path)]) == 0
    (model / "two").symlink_to(start)
    (tmp_path / "run").rename(tmp_path / "done")
    assert main(["train", str(path)]) == 2
    assert "name one: one, two" in capsys.readouterr().err
