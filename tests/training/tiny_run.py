"""A run small enough for a test: drawn videos, and a configuration that trains on them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from service.videoclip.manifest import Manifest, describe_file, revision_of
from tests.training.tiny import ARCHITECTURE, tiny_description
from training.data.motion_world.files import write_video
from training.models.network import build, describe

LABELS = ("a dark square", "a bright square")


def draw_videos(folder: Path, *, count: int = 12, broken: int = 0) -> Path:
    """Half a second of a dark or a bright square in each, and the list of them; returns the list.

    broken: so many more files that are no videos at all.
    """
    rows = [("path", "label", "caption")]
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for i in range(count + broken):
        path = folder / f"videos/{i}.mp4"
        label = LABELS[i % 2]
        if i < count:
            noise = np.random.default_rng(i).integers(0, 40, (8, 64, 64, 3))
            frames: NDArray[np.uint8] = (noise + (10, 200)[i % 2]).astype(np.uint8)
            write_video(path, frames, seconds=0.5)
        else:
            path.write_bytes(b"no video at all")
        rows.append((f"videos/{i}.mp4", label, f"{label}, number {i}"))
    with (folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "train.csv"


def write_start(folder: Path) -> Path:
    """An artefact of seed 1's weights to train from, without graphs: nobody runs them here.

    Returns its folder.
    """
    description = tiny_description("start")
    weights = build(ARCHITECTURE, seed=1).state_dict()
    folder.mkdir(parents=True)
    for name in ("weights_clip.safetensors", "weights_tuned.safetensors"):
        save_file(weights, folder / name)
    (folder / "tokenizer.json").write_text(description.tokenizer_json, encoding="utf-8")
    for name in ("video_encoder.onnx", "text_encoder.onnx"):
        (folder / name).write_bytes(b"no graph")
    files = {path.name: describe_file(path) for path in folder.iterdir()}
    manifest = Manifest(
        name=description.name,
        revision=revision_of(
            files,
            sampling=description.sampling,
            preprocessing=description.preprocessing,
            pooling=description.pooling,
        ),
        created_at="2024-01-01T00:00:00+00:00",
        recipe="clip",
        architecture=describe(ARCHITECTURE),
        embedding_size=ARCHITECTURE["embed_dim"],
        frames_per_clip=description.sampling.frames,
        sampling=description.sampling,
        preprocessing=description.preprocessing,
        pooling=description.pooling,
        template_set=description.template_set,
        logit_scale=100.0,
        context_length=ARCHITECTURE["text_cfg"]["context_length"],
        text_tower_tuned=False,
        default_clip_weight=1.0,
        clip_weight_rule="nothing was tuned",
        curve=(),
        background_labels=(),
        files=files,
        licence="Apache-2.0",
        provenance={},
        parity=(),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder


def write_config(
    path: Path,
    *,
    run: Path,
    clip: Path,
    videos: Path,
    recipe: str = "[open_vclip]",
    **tables: dict[str, Any],
) -> Path:
    """A configuration of a few steps; `tables` has keys to add or to replace, by table.

    Keys under "top" stand above the tables. Returns `path`.
    """
    content: dict[str, dict[str, Any]] = {
        "top": {
            "run": str(run),
            "clip": str(clip),
            "frames": 4,
            "template_set": "none",
            "seed": 3,
            "checkpoint_every": 0,
        },
        "data": {"train": str(videos), "workers": 0},
        "optimisation": {"steps": 6, "batch_size": 4, "peak_learning_rate": 1e-3},
    }
    for name, keys in tables.items():
        content.setdefault(name, {}).update(keys)
    lines = []
    for name, keys in content.items():
        lines += [] if name == "top" else ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
    path.write_text("\n".join([*lines, "", recipe, ""]), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return f'"{value}"' if isinstance(value, (str, Path)) else repr(value)
