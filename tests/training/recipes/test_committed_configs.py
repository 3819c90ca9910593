"""Committed configurations, read and, in the drawn world, trained."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.videoclip.manifest import Preprocessing, load_manifest
from training.config import load_config
from training.data.few_shot import Subset
from training.data.motion_world.drawing import Camera
from training.data.motion_world.files import write_set
from training.data.motion_world.sets import examples
from training.errors import Refusal
from training.loop import train
from training.models.architecture import describe
from training.release import _chosen, release
from training.run_config import PublishConfig, RunConfig, recipe_module
from training.training_videos import read_training_videos

CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"
DEMO = next((CONFIGS.parents[1] / "model_store" / "demo").iterdir())
FULL_SIZE = (
    "vifi_clip_vit_b16",
    "vifi_clip_vit_b16_prompts_base_to_novel",
    "vifi_clip_vit_b16_prompts_few_shot",
    "fitclip_vit_b16",
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn videos of as many classes, with captions, and their list."""
    folder = tmp_path_factory.mktemp("source")
    drawn = list(examples("source", "train", count=8, seed=0))
    camera = Camera(pixels=40, frames=8, seconds=1.0)
    write_set(folder, drawn, camera=camera, processes=1, title="draw")
    return folder / "list.csv"


def short(name: str, videos: Path, runs: Path, **changes: Any) -> RunConfig:
    """A committed configuration on a few videos, for a few steps."""
    config = load_config(CONFIGS / "motion_world" / f"{name}.toml", RunConfig)
    data = replace(
        config.data,
        train=videos,
        unlabelled=None if config.data.unlabelled is None else videos,
        subset=Subset(),
        cache=None,
        workers=0,
    )
    validation = config.validation
    return replace(
        config,
        run=runs / name,
        clip=DEMO,
        data=data,
        optimisation=replace(config.optimisation, steps=3, batch_size=4),
        validation=None if validation is None else replace(validation, videos=videos, every=2),
        **changes,
    )


@pytest.mark.parametrize("name", FULL_SIZE)
def test_configurations_of_full_size_fit_vit_b16(name: str) -> None:
    """Each is read without a complaint, and its network can be built of ViT-B/16."""
    config = load_config(CONFIGS / f"{name}.toml", RunConfig)
    clip = describe("ViT-B-16-quickgelu")
    changes = recipe_module(config.recipe).architecture(config.settings)
    assert describe({**clip, **changes})["temporal"] == "none"
    assert config.optimisation.rows_per_part(8) in (4, 8)
    assert not config.regularisation.looks_at_clip
    if config.recipe == "vifi_clip":
        assert config.preprocessing.mean == (0.485, 0.456, 0.406)
        assert config.template_set == (
            "vifi-clip" if config.settings.prompts is None else "vifi-clip-prompts"
        )


def test_the_prompts_of_both_settings_are_the_published_ones() -> None:
    """Base-to-novel: 16 of depth 9, LR 4e-2, 11 epochs; few-shot: 10 of depth 12, 8e-3, 50."""
    found = {}
    for setting in ("base_to_novel", "few_shot"):
        path = CONFIGS / f"vifi_clip_vit_b16_prompts_{setting}.toml"
        config = load_config(path, RunConfig)
        prompts = config.settings.prompts
        found[setting] = (
            (prompts.vision, prompts.text),
            (prompts.vision_depth, prompts.text_depth),
            config.optimisation.peak_learning_rate,
            config.optimisation.epochs,
        )
    assert found["base_to_novel"] == ((16, 16), (9, 9), 4e-2, 11)
    assert found["few_shot"] == ((10, 10), (12, 12), 8e-3, 50)


def test_text4viss_few_shots_are_repeated_as_in_the_released_code(tmp_path: Path) -> None:
    """Split 1 of UCF-101: 9,537 videos; 202 shots 47 times in each of 30 epochs, 256 at a time."""
    config = load_config(CONFIGS / "text4vis_vit_l14_few_shot.toml", RunConfig)
    assert (config.recipe, config.settings.temporal_head) == ("text4vis", "none")
    assert (config.frames, config.clip.name) == (8, "vit-l-14-quickgelu")
    table = tmp_path / "train1.csv"
    rows = [f"{number}.avi,class {number % 101}\n" for number in range(9537)]
    table.write_text("path,label\n" + "".join(rows))
    preprocessing = Preprocessing(image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    videos = read_training_videos(
        replace(config, data=replace(config.data, train=table)), preprocessing
    )
    shown = Counter(video.path for video in videos.labelled.videos)
    assert len(shown) == 2 * 101
    assert set(shown.values()) == {47}
    assert videos.notes == ("202 videos, each 47 times in a pass",)
    assert len(videos.examples(60)) == 202  # for LDA, a repeated shot is no further example
    steps = config.optimisation.steps_for(videos.largest(unlabelled=False))
    assert steps == round(30 * 47 * 202 / 256) == 1113


def test_the_drawn_worlds_curves_show_the_closed_set_against_the_others() -> None:
    """Where there are others: the picture is drawn over λ only without a closed set."""
    shown = {}
    for path in sorted((CONFIGS / "motion_world").glob("*.toml")):
        config = load_config(path, RunConfig)
        assert config.select is not None, path.name
        shown[path.stem] = config.select.closed_set, len(config.data.evaluation)
    assert len(shown) == 16
    for name, (closed_set, sets) in shown.items():
        assert closed_set == ("source" if sets > 1 else None), name


@pytest.mark.parametrize("name", ["vifi_clip", "vifi_clip_image", "vifi_clip_text", "fitclip"])
def test_the_drawn_worlds_configurations_train(name: str, videos: Path, tmp_path: Path) -> None:
    """A few steps from the demo's CLIP leave finite losses and weights of which some moved."""
    folder = train(short(name, videos, tmp_path))
    facts = json.loads((folder / "run.json").read_text())
    assert facts["recipe"] == name.partition("_image")[0].partition("_text")[0]
    clip, tuned = (load_file(folder / f"{end}.safetensors") for end in ("clip", "tuned"))
    moved = {n for n, t in tuned.items() if not torch.equal(t, clip[n])}
    visual = {n for n in moved if n.startswith("visual.")}
    assert bool(visual) == (name != "vifi_clip_text")
    assert bool(moved - visual) == (name != "vifi_clip_image")
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert len([step for step in steps if "loss" in step]) == 3
    if name == "fitclip":
        assert facts["validation_loss"] < float("inf")
        assert {"labelled", "distillation"} <= set(str(steps[0]).replace("'", " ").split())


def test_without_a_rule_lambda_is_the_papers(tmp_path: Path, videos: Path) -> None:
    """FitCLIP: 1 - α, 0.6 for the released 0.4 of the student; ViFi-CLIP: 0; else a refusal."""
    for name, expected in (("fitclip", 0.6), ("vifi_clip", 0.0)):
        points, choice = _chosen(short(name, videos, tmp_path, select=None))
        assert points == ()
        assert choice.clip_weight == expected
        assert f"λ = {expected:g}" in choice.reason
    config = short("fitclip", videos, tmp_path, select=None, fitclip=None, open_vclip={})
    with pytest.raises(Refusal, match="missing table select"):
        _chosen(config)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["vifi_clip_prompts", "fitclip"])
def test_a_run_becomes_an_artefact(name: str, videos: Path, tmp_path: Path) -> None:
    """By configuration alone: bridge, prompt and publish; teach a student and publish."""
    changes: dict[str, Any] = {}
    if name == "vifi_clip_prompts":
        stage_one = train(short("vifi_clip", videos, tmp_path))
        table = short(name, videos, tmp_path).vifi_clip or {}
        changes["vifi_clip"] = {**table, "stage_one": str(stage_one)}
    publish = PublishConfig(name="drawn", licence="MIT", store=tmp_path / "store")
    config = short(name, videos, tmp_path, select=None, publish=publish, **changes)
    train(config)
    if name == "vifi_clip_prompts":
        tuned = load_file(config.run / "tuned.safetensors")
        for weight, tensor in load_file(stage_one / "tuned.safetensors").items():
            assert torch.equal(tensor, tuned[weight]), weight
    manifest = load_manifest(release(config, activate=False, replace=False))
    assert manifest.template_set == config.template_set
    assert manifest.pooling == config.settings.pooling
    assert manifest.default_clip_weight == config.settings.clip_weight
    prompts = getattr(config.settings, "prompts", None)
    assert manifest.context_length == 32 - (prompts.text if prompts else 0)
