"""The demo model from nothing: draw the world, train CLIP, fine-tune it, choose λ, publish."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from service.videoclip.manifest import LambdaPoint, Sampling, load_manifest
from service.videoclip.preprocessing import normalize
from training.artefact import Description
from training.config import load_config
from training.data.motion_world import sets, vocabulary
from training.data.motion_world.drawing import Camera, Scene, draw
from training.data.motion_world.files import write_video
from training.demo_config import DemoConfig
from training.models.network import build
from training.provenance import environment
from training.publish import publish
from training.select_lambda import (
    Choice,
    EvaluationSet,
    SelectionRule,
    choose,
    clip_weights,
    curve,
    sweep,
)
from training.workshop import FRAMES, Method, Workshop

MIXED = "unseen-nouns among all"
PER_FRAME = "CLIP, frame by frame"
FORGETTING_POINTS = 3.0
REAL_CLIPS = 8
CARD = """\
A tiny model that knows one small world: coloured shapes that move (Motion World, drawn by
`training/data/motion_world`). It was made to show and test the whole path from training to serving
on a laptop, with every figure measured.

**It can** tell {nouns} shapes, {verbs} motions, {colours} colours and {textures} textures apart in
short clips of one moving shape, also in combinations that fine-tuning never showed it, in its own
words: {words}.

**It cannot** say anything about real films: on those its scores are noise. Words outside its
vocabulary reach it as letters that it never learnt. It has seen one object at a time, on muted
backgrounds, in two-second clips."""


def evaluation_sets(workshop: Workshop, split: sets.Split) -> dict[str, EvaluationSet]:
    """What λ is judged by: the source, three zero-shot targets, and one generalised one.

    Of the frames of a video the middle ones of ``FRAMES`` equal parts are taken, as the published
    model samples them.
    """
    chosen: dict[str, EvaluationSet] = {}
    for name in sets.CLASS_SETS:
        data = workshop.videos(name, split)
        step = data.frames.shape[1] // FRAMES
        chosen[name] = replace(data, frames=data.frames[:, step // 2 :: step])
    unseen = chosen["unseen-nouns"]
    chosen[MIXED] = replace(unseen, classes=unseen.classes + sets.labels("source"))
    return chosen


def measure(
    workshop: Workshop, split: sets.Split, method: Method, seeds: Sequence[int]
) -> tuple[LambdaPoint, ...]:
    """The λ curve of a method on a split: top-1 %, mean and spread over seeds."""
    target = workshop.folder / f"curve-{split}-{method}-{'-'.join(map(str, seeds))}.json"
    if not target.exists():
        data = evaluation_sets(workshop, split)
        network = workshop.network()
        weights = clip_weights()
        # Sets that share frames are embedded once.
        videos = sum(len(part.labels) for name, part in data.items() if name != MIXED)
        sweeps = []
        for seed in seeds:
            title = f"measure {method}, seed {seed}, {split}"
            with tqdm(total=videos * len(weights), desc=title, unit="video") as bar:
                sweeps.append(
                    sweep(
                        network,
                        clip=workshop.clip(),
                        tuned=workshop.tuned(method, seed),
                        sets=data,
                        classifier=workshop.classifier,
                        preprocessing=workshop.preprocessing,
                        weights=weights,
                        on_batch=bar.update,
                    )
                )
        points = [point.model_dump(mode="json") for point in curve(sweeps)]
        partial_file = target.with_suffix(".partial")
        partial_file.write_text(json.dumps(points, indent=1), encoding="utf-8")
        partial_file.rename(target)
    return tuple(
        LambdaPoint.model_validate(point)
        for point in json.loads(target.read_text(encoding="utf-8"))
    )


def measure_clip(workshop: Workshop, split: sets.Split) -> dict[str, float]:
    """Top-1 % of CLIP itself: every frame for itself, no neighbours, mean over frames."""
    network = build(workshop.architecture(), temporal="none")
    weights = workshop.clip()
    scores = sweep(
        network,
        clip=weights,
        tuned=weights,
        sets=evaluation_sets(workshop, split),
        classifier=workshop.classifier,
        preprocessing=workshop.preprocessing,
        weights=(1.0,),
    )
    return {name: points[1.0].top1 for name, points in scores.items()}


def choose_clip_weight(points: Sequence[LambdaPoint]) -> Choice:
    """The largest mean over what fine-tuning is for, with attributes within 3 points of λ = 1."""
    rule = SelectionRule(
        maximise=("source", "unseen-pairs", "unseen-nouns"),
        within={"unseen-attributes": FORGETTING_POINTS},
    )
    choice = choose(points, rule)
    return Choice(choice.clip_weight, f"{choice.reason}; measured on validation videos")


def make(workshop: Workshop, *, store: Path, seeds: Sequence[int]) -> Path:
    """Run all stages and publish the model of the first seed. Returns the artefact's folder."""
    validation = measure(workshop, "validation", "open-vclip", seeds)
    choice = choose_clip_weight(validation)
    test = measure(workshop, "test", "open-vclip", seeds)
    data = evaluation_sets(workshop, "test")["unseen-attributes"]
    config = workshop.config
    described = json.dumps(asdict(config), sort_keys=True)
    description = Description(
        name="demo",
        recipe="open-vclip",
        architecture=workshop.architecture(),
        sampling=Sampling(mode="uniform", frames=FRAMES),
        preprocessing=workshop.preprocessing,
        tokenizer_json=(workshop.folder / "tokenizer.json").read_text(encoding="utf-8"),
        template_set=config.template_set,
        licence="Apache-2.0",
        default_clip_weight=choice.clip_weight,
        clip_weight_rule=choice.reason,
        curve=test,
        background_labels=background_labels(),
        provenance={
            "command": "make demo-model",
            "config": json.loads(described),
            "config_sha256": hashlib.sha256(described.encode()).hexdigest(),
            **environment("cpu", precision=config.open_vclip.precision),
            "seeds": list(seeds),
            "clip_frame_by_frame": measure_clip(workshop, "test"),
            "videos_per_set": config.world.test_videos,
        },
        card=CARD.format(
            nouns=len(vocabulary.NOUNS),
            verbs=len(vocabulary.VERBS),
            colours=len(vocabulary.COLOURS),
            textures=len(vocabulary.TEXTURES),
            words=", ".join((*vocabulary.NOUNS, *vocabulary.VERBS, *vocabulary.COLOURS)),
        ),
    )
    return publish(
        description,
        clip=workshop.clip(),
        tuned=workshop.tuned("open-vclip", seeds[0]),
        store=store,
        real_clips=normalize(data.frames[:REAL_CLIPS], workshop.preprocessing),
        real_texts=data.classes[:REAL_CLIPS],
        replace=True,
    )


def background_labels() -> tuple[str, ...]:
    """Labels of the world's kind, against which a label's independent score is measured.

    Every noun with every verb in turn, so that no word is commoner than another.
    """
    verbs = vocabulary.VERBS
    return tuple(
        vocabulary.pair_label(noun, verbs[(5 * index + turn) % len(verbs)])
        for index, noun in enumerate(vocabulary.NOUNS)
        for turn in range(len(verbs))
    )


SAMPLES = (
    Scene("star", "moving left", "red", "plain", "dark", (11,)),
    Scene("wheel", "spinning clockwise", "yellow", "striped", "gradient", (12,)),
    Scene("cross", "growing", "cyan", "plain", "checkered", (13,)),
    Scene("heart", "bouncing", "purple", "dotted", "dark", (14,)),
)


def draw_samples(folder: Path) -> None:
    """Film a few scenes for people to try the service with, larger than the network sees them."""
    folder.mkdir(parents=True, exist_ok=True)
    camera = Camera(pixels=160, frames=32, exposure_seconds=0.1)
    for scene in SAMPLES:
        name = vocabulary.pair_label(scene.noun, scene.verb).replace(" ", "-") + ".mp4"
        write_video(folder / name, draw(scene, camera), seconds=camera.seconds)


def report(
    workshop: Workshop, *, seeds: Sequence[int], methods: Sequence[Method] = ("open-vclip",)
) -> str:
    """λ curves on test videos as Markdown: the evidence for the model card."""
    own = measure_clip(workshop, "test")
    names = list(own)
    lines = [f"| λ | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
    lines.append(_row(PER_FRAME, [f"{own[name]:.1f}" for name in names]))
    for method in methods:
        for point in measure(workshop, "test", method, seeds):
            cells = [f"{point.scores[name]:.1f}" for name in names]
            if len(seeds) > 1:  # one run has no spread
                cells = [
                    f"{cell} ± {point.spread[name]:.1f}"
                    for cell, name in zip(cells, names, strict=True)
                ]
            lines.append(_row(f"{method}, λ = {point.clip_weight:g}", cells))
    return "\n".join(lines)


def _row(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def main(
    *,
    config: Path,
    work: Path,
    store: Path,
    seeds: int = 1,
    compare: bool = False,
    samples: Path | None = None,
) -> int:
    """Make, publish and report the demo model. Returns the exit code.

    Args:
        config: a TOML file of `DemoConfig`.
        work: folder of the stages' results; an interrupted run goes on there.
        store: the model store to publish in.
        seeds: fine-tunings to measure; the first is published.
        compare: measure plain fine-tuning too.
        samples: also draw a few sample videos into this folder.

    Raises:
        ConfigError: the configuration cannot be used, or the folder belongs to another one.
    """
    workshop = Workshop(work, load_config(config, DemoConfig))
    workshop.claim()
    folder = make(workshop, store=store, seeds=range(seeds))
    if samples is not None:
        draw_samples(samples)
    methods: tuple[Method, ...] = ("open-vclip", "plain") if compare else ("open-vclip",)
    print(report(workshop, seeds=range(seeds), methods=methods))
    print(load_manifest(folder).clip_weight_rule)
    print(f"published {folder}")
    return 0
