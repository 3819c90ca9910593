"""The commands of `python -m training`. Each one imports what it needs when it runs."""

import argparse

from service.videoclip.manifest import LambdaPoint


def refusals() -> tuple[type[Exception], ...]:
    """Errors that tell a user what is wrong with what they gave: one line, exit code 2."""
    from service.videoclip.manifest import ArtefactError
    from training.check_reference import ReferenceFileError
    from training.config import ConfigError
    from training.parity import ParityError
    from training.publish import PublishError
    from training.pull import PullError
    from training.select_lambda import SelectionError
    from training.video_list import VideoListError
    from training.weights import WeightsError

    return (
        ArtefactError,
        ReferenceFileError,
        ConfigError,
        ParityError,
        PublishError,
        PullError,
        SelectionError,
        VideoListError,
        WeightsError,
    )


def check_reference(parsed: argparse.Namespace) -> int:
    """Compare the network with a reference file."""
    from training.check_reference import compare_with_reference

    errors = compare_with_reference(parsed.file)
    print("\n".join(errors.lines()))
    return 0 if errors.passed else 1


def pull(parsed: argparse.Namespace) -> int:
    """Publish CLIP itself."""
    import numpy as np

    from service.videoclip.preprocessing import normalize
    from training import publish as publishing
    from training.config import ConfigError
    from training.pull import pull
    from training.video_list import LabelledVideo, decode_videos

    try:
        pulled = pull(
            parsed.model,
            pretrained=parsed.pretrained,
            file=parsed.file,
            quick_gelu=parsed.quick_gelu,
            name=parsed.name,
            frames=parsed.frames,
            template_set=parsed.templates,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    description = pulled.description
    clips = None
    if parsed.video:
        decoded = decode_videos(
            [LabelledVideo(path=path, label="") for path in parsed.video],
            sampling=description.sampling,
            preprocessing=description.preprocessing,
        )
        clips = np.concatenate(
            [normalize(views, description.preprocessing) for views in decoded.frames]
        )
    else:
        print("no --video given: the exports are compared on random frames only")
    folder = publishing.publish(
        description,
        clip=pulled.weights,
        tuned=pulled.weights,
        store=parsed.store,
        real_clips=clips,
        real_texts=("a photo of a dog.", "someone is riding a bicycle along a river"),
        activate=not parsed.no_activate,
        replace=parsed.replace,
    )
    print(folder)
    return 0


def train(parsed: argparse.Namespace) -> int:
    """Fine-tune as a configuration says."""
    from training.config import load_config
    from training.loop import train
    from training.run_config import RunConfig

    print(train(load_config(parsed.config, RunConfig), source=parsed.config))
    return 0


def select(parsed: argparse.Namespace) -> int:
    """Measure the λ curve and print it with the choice."""
    from training.config import ConfigError, load_config
    from training.release import measure
    from training.run_config import RunConfig
    from training.select_lambda import choose

    config = load_config(parsed.config, RunConfig)
    if config.select is None:
        raise ConfigError(f"{parsed.config}: missing table select: no rule to choose λ by")
    points = measure(config, runs=(config.run, *parsed.run), steps=parsed.steps)
    print("\n".join(_rows(points)))
    print(choose(points, config.select).reason)
    return 0


def publish(parsed: argparse.Namespace) -> int:
    """Publish a run."""
    from training.config import load_config
    from training.release import release
    from training.run_config import RunConfig

    config = load_config(parsed.config, RunConfig)
    print(release(config, activate=not parsed.no_activate, replace=parsed.replace))
    return 0


def evaluate(parsed: argparse.Namespace) -> int:
    """Score an artefact on video files."""
    from tqdm import tqdm

    from training.config import ConfigError
    from training.evaluate.artefact import PublishedModel
    from training.video_list import classes_of, read_video_list

    if parsed.clip_weight is not None and not 0.0 <= parsed.clip_weight <= 1.0:
        raise ConfigError(f"--clip-weight {parsed.clip_weight}: not within 0 and 1")
    model = PublishedModel(
        parsed.artefact,
        clip_weight=parsed.clip_weight,
        runtime=parsed.runtime,
        threads=parsed.threads,
    )
    videos = read_video_list(parsed.videos)
    with tqdm(total=len(videos), desc="decode", unit="video") as bar:
        decoded = model.decode(videos, threads=parsed.threads, on_video=bar.update)
    for path, reason in decoded.failed:
        print(f"left out: {path}: {reason}")
    scores = model.evaluate(decoded, classes=classes_of(videos))
    print(
        f"λ {model.clip_weight:g}: top-1 {scores.top1:.1f} %, top-5 {scores.top5:.1f} %, "
        f"{scores.videos} videos, {len(classes_of(videos))} labels"
    )
    return 0


def export(parsed: argparse.Namespace) -> int:
    """Write the graphs of an architecture."""
    from training.config import ConfigError
    from training.export import export
    from training.models.network import build

    try:
        network = build(parsed.model, temporal=parsed.temporal)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    parsed.folder.mkdir(parents=True, exist_ok=True)
    export(network, parsed.folder, frames_per_clip=parsed.frames)
    for path in sorted(parsed.folder.glob("*_encoder.*")):
        print(f"{path}  {path.stat().st_size} bytes")
    return 0


def demo(parsed: argparse.Namespace) -> int:
    """Make the demo model."""
    from training.demo import main

    return main(
        config=parsed.config,
        work=parsed.work,
        store=parsed.store,
        seeds=parsed.seeds,
        compare=parsed.compare,
        samples=parsed.samples,
    )


def _rows(points: tuple[LambdaPoint, ...]) -> list[str]:
    from training.model_card import figure, without_spread_of_one

    names = list(points[0].scores)
    rows = [f"{'λ':>6}  " + "  ".join(f"{name:>18}" for name in names)]
    for point in without_spread_of_one(points):
        cells = (figure(point, name) for name in names)
        rows.append(f"{point.clip_weight:>6g}  " + "  ".join(f"{cell:>18}" for cell in cells))
    return rows
