"""From finished runs to an artefact: the λ curve over seeds, the choice, the publication."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file
from tqdm import tqdm

from service.videoclip.manifest import LambdaPoint, Sampling
from service.videoclip.preprocessing import normalize
from training.artefact import Description
from training.config import ConfigError
from training.loop import CLIP_FILE, FACTS_FILE, TUNED_FILE, decode_with_progress
from training.models.network import VideoCLIP
from training.publish import publish
from training.run_config import RunConfig
from training.select_lambda import (
    Choice,
    EvaluationSet,
    choose,
    clip_weights,
    curve,
    sweep,
)
from training.start import Start, classifier_of, open_start
from training.video_list import LabelledVideo, classes_of, read_video_list

CURVE_FILE = "curve.json"
_POINTS = TypeAdapter(tuple[LambdaPoint, ...])
_REAL_VIDEOS = 4


def measure(config: RunConfig, *, runs: Sequence[Path], steps: int) -> tuple[LambdaPoint, ...]:
    """The λ curve of one or more runs (seeds) on the configuration's evaluation lists.

    Every video is decoded once for all runs and all λ. The curve is also written to the first run's
    folder. Raises ConfigError when there is no evaluation list or no finished run.
    """
    if not config.data.evaluation:
        raise ConfigError("data.evaluation: names no list to measure on")
    for run in runs:
        _require_finished(run)
    start = open_start(config.clip)
    sets = {name: _set(path, config, start, name) for name, path in config.data.evaluation.items()}
    network = start.network()

    def classifier(current: VideoCLIP, labels: Sequence[str]) -> NDArray[np.float32]:
        return classifier_of(
            current, labels, tokenizer=start.tokenizer, template_set=config.template_set
        )

    weights = clip_weights(steps)
    total = sum(len(data.labels) for data in sets.values()) * len(weights) * len(runs)
    sweeps = []
    with tqdm(total=total, desc="measure", unit="video") as bar:
        for run in runs:
            sweeps.append(
                sweep(
                    network,
                    clip=load_file(run / CLIP_FILE),
                    tuned=load_file(run / TUNED_FILE),
                    sets=sets,
                    classifier=classifier,
                    preprocessing=start.preprocessing,
                    weights=weights,
                    on_batch=bar.update,
                )
            )
    points = curve(sweeps)
    text = json.dumps(_POINTS.dump_python(points, mode="json"), indent=1)
    (runs[0] / CURVE_FILE).write_text(text + "\n", encoding="utf-8")
    return points


def release(config: RunConfig, *, activate: bool, replace: bool) -> Path:
    """Publish the configuration's run at the λ that its rule chooses; returns the folder.

    Raises ConfigError when the run, its curve, or the tables `publish` and `select` are missing;
    else as `training.publish.publish`.
    """
    if config.publish is None:
        raise ConfigError("missing table publish")
    facts = _require_finished(config.run)
    start = open_start(config.clip)
    points, choice = _chosen(config)
    videos = read_video_list(config.data.train)[:_REAL_VIDEOS]
    decoded = decode_with_progress(
        videos, frames=config.frames, start=start, threads=config.data.threads, title="real inputs"
    )
    manifest = start.manifest
    description = Description(
        name=config.publish.name,
        recipe="open_vclip",
        architecture={**manifest.architecture, "temporal": "neighbour"},
        sampling=Sampling(mode="uniform", frames=config.frames),
        preprocessing=start.preprocessing,
        tokenizer_json=start.tokenizer_json,
        template_set=config.template_set,
        licence=config.publish.licence,
        default_clip_weight=choice.clip_weight,
        clip_weight_rule=choice.reason,
        curve=points,
        background_labels=config.publish.background_labels,
        provenance=facts,
        card=config.publish.card,
    )
    return publish(
        description,
        clip=load_file(config.run / CLIP_FILE),
        tuned=load_file(config.run / TUNED_FILE),
        store=config.publish.store,
        real_clips=normalize(decoded.frames[:, 0], start.preprocessing),
        real_texts=classes_of(videos),
        activate=activate,
        replace=replace,
    )


def _chosen(config: RunConfig) -> tuple[tuple[LambdaPoint, ...], Choice]:
    if config.select is None:
        raise ConfigError("missing table select: no rule to choose λ by")
    path = config.run / CURVE_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: missing; `python -m training select` measures it")
    points = _POINTS.validate_json(path.read_bytes())
    return points, choose(points, config.select)


def _set(path: Path, config: RunConfig, start: Start, name: str) -> EvaluationSet:
    videos: list[LabelledVideo] = read_video_list(path)
    classes = classes_of(videos)
    decoded = decode_with_progress(
        videos, frames=config.frames, start=start, threads=config.data.threads, title=name
    )
    return EvaluationSet(
        frames=decoded.frames[:, 0], labels=decoded.label_ids(classes), classes=classes
    )


def _require_finished(run: Path) -> dict[str, Any]:
    path = run / FACTS_FILE
    if not path.is_file():
        raise ConfigError(f"{run}: no finished run; `python -m training train` makes one")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
