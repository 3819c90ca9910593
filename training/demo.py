"""The demo model from nothing: draw the world, train CLIP, fine-tune it, choose λ, publish."""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
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
from training.select_lambda import EvaluationSet, clip_weights, curve, sweep
from training.selection_rule import Choice, SelectionRule, choose
from training.variant_sets import some_of
from training.whole_file import write_whole
from training.workshop import FRAMES, Method, Workshop

MIXED = "unseen-nouns among all"
PER_FRAME = "CLIP, frame by frame"
FORGOTTEN = "unseen-attributes"
REAL_CLIPS = 8
CARD = """\
A tiny model that knows one small world: coloured shapes that move (Motion World, drawn by
`training/data/motion_world`). It was made to show and test the whole path from training to serving
on a laptop, with every figure measured.

**It can** tell {nouns} shapes, {verbs} motions, {colours} colours and {textures} textures apart in
short clips of one moving shape, also in combinations that fine-tuning never showed it, in its own
words: {words}.

**It cannot** tell a motion from its reverse: left from right, up from down, growing from
shrinking, clockwise from counterclockwise. Open-VCLIP's network gives a video and its reverse the
same vector, so of such two labels with one noun it prefers the one that fine-tuning showed it. Nor
can it say anything about real films: on those its scores are noise. Words outside its vocabulary
reach it as letters that it never learnt. It has seen one object at a time, on muted backgrounds, in
two-second clips."""


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
    curves = [_curve_of_seed(workshop, split, method, seed) for seed in seeds]
    if len(curves) == 1:
        return curves[0]
    return tuple(over_seeds(points) for points in zip(*curves, strict=True))


def _curve_of_seed(
    workshop: Workshop, split: sets.Split, method: Method, seed: int
) -> tuple[LambdaPoint, ...]:
    target = workshop.folder / f"curve-{split}-{method}-{seed}.json"
    if not target.exists():
        data = evaluation_sets(workshop, split)
        weights = clip_weights()
        # Sets that share frames are embedded once.
        videos = sum(len(part.labels) for name, part in data.items() if name != MIXED)
        title = f"measure {method}, seed {seed}, {split}"
        with tqdm(total=videos * len(weights), desc=title, unit="video") as bar:
            scores = sweep(
                workshop.network(),
                clip=workshop.clip(),
                tuned=workshop.tuned(method, seed),
                sets=data,
                classifier=workshop.classifier,
                preprocessing=workshop.preprocessing,
                weights=weights,
                on_batch=bar.update,
            )
        points = [point.model_dump(mode="json") for point in curve([scores])]
        write_whole(target, json.dumps(points, indent=1))
    return tuple(
        LambdaPoint.model_validate(point)
        for point in json.loads(target.read_text(encoding="utf-8"))
    )


def over_seeds(points: Sequence[LambdaPoint]) -> LambdaPoint:
    """Mean and sample standard deviation of one λ's scores."""
    values = {name: [point.scores[name] for point in points] for name in points[0].scores}
    return LambdaPoint(
        clip_weight=points[0].clip_weight,
        scores={name: statistics.fmean(each) for name, each in values.items()},
        spread={name: statistics.stdev(each) for name, each in values.items()},
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
    return {name: points[1.0].headline for name, points in scores.items()}


def choose_clip_weight(
    points: Sequence[LambdaPoint], *, own: Mapping[str, float], forgetting: float
) -> Choice:
    """The largest mean over what fine-tuning is for, with attributes near CLIP's own.

    own: top-1 % of CLIP frame by frame, the model that exists without any fine-tuning; λ = 1 is its
    weights among neighbouring frames, which is a little less. forgetting: points that attributes
    may lie below it. Raises SelectionError when they do at every λ.
    """
    floor = round(own[FORGOTTEN] - forgetting, 1)
    rule = SelectionRule(
        maximise=("source", "unseen-pairs", "unseen-nouns"), at_least={FORGOTTEN: floor}
    )
    choice = choose(points, rule)
    why = f"{forgetting:g} points below {PER_FRAME}, {own[FORGOTTEN]:.1f} %"
    return Choice(choice.clip_weight, f"{choice.reason}; the floor is {why}; validation videos")


def make(workshop: Workshop, *, store: Path, seeds: Sequence[int]) -> Path:
    """Run all stages and publish the model of the first seed. Returns the artefact's folder.

    λ is chosen on that model's own validation curve; the curve in the manifest is over all seeds.
    """
    validation = measure(workshop, "validation", "open-vclip", seeds[:1])
    choice = choose_clip_weight(
        validation,
        own=measure_clip(workshop, "validation"),
        forgetting=workshop.config.forgetting_points,
    )
    test = measure(workshop, "test", "open-vclip", seeds)
    tested = evaluation_sets(workshop, "test")
    data = tested[FORGOTTEN]
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
        evaluation_sets=some_of(tested),
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
