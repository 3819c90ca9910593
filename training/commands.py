"""The commands of `python -m training`. Each one imports what it needs when it runs."""

import argparse
from pathlib import Path

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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune CLIP on video, measure it, choose λ, export and publish it.",
        epilog="Exit codes: 0 done, 1 a check failed, 2 the input cannot be used.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_check_reference(commands)
    _add_pull(commands)
    _add_train(commands)
    _add_select(commands)
    _add_publish(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_demo(commands)
    return top


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add_check_reference(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "check-reference",
        help="compare the network with outputs and gradients of Open-VCLIP's own module",
        description="Build the network that FILE describes, run it on the inputs in FILE, and "
        "print the largest errors. Exit code 0 if every error is below 1e-4, 1 if one is not, "
        "2 if the file cannot be used.",
    )
    command.add_argument("file", type=Path, help="a safetensors file of the reference format")
    command.set_defaults(command=_check_reference)


def _add_pull(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "pull",
        help="publish CLIP itself, with weights from the hub or from a file",
        description="Publish an open_clip model as an artefact whose both ends are CLIP: something "
        "to serve, and what `train` starts from.",
    )
    command.add_argument("model", help="open_clip's name, e.g. ViT-B-32-quickgelu")
    command.add_argument("--pretrained", default="openai", help="open_clip's tag (openai)")
    command.add_argument("--file", type=Path, help="weights from this file, without the hub")
    command.add_argument("--name", help="of the artefact (the model's name in lower case)")
    command.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    command.add_argument("--templates", default="vifi-clip", help="template set (vifi-clip)")
    command.add_argument(
        "--video", type=Path, action="append", default=[], help="compare the exports on it, too"
    )
    _add_store(command)
    command.set_defaults(command=_pull)


def _add_train(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("train", help="fine-tune as a configuration says")
    command.add_argument("config", type=Path, help="a TOML file; see training/configs")
    command.set_defaults(command=_train)


def _add_select(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "select",
        help="measure λ from 0 to 1 and choose one by the configuration's rule",
        description="Sweeps λ over the lists in data.evaluation, and writes the curve to the run.",
    )
    command.add_argument("config", type=Path)
    command.add_argument(
        "--run", type=Path, action="append", default=[], help="runs with other seeds, for the mean"
    )
    command.add_argument("--steps", type=int, default=10, help="distances between 0 and 1 (10)")
    command.set_defaults(command=_select)


def _add_publish(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("publish", help="export a run and put it into the model store")
    command.add_argument("config", type=Path)
    command.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    command.add_argument("--replace", action="store_true", help="replace the same weights")
    command.set_defaults(command=_publish)


def _add_evaluate(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "evaluate",
        help="zero-shot accuracy of a published artefact on video files",
        description="Runs the exported graphs, as the service does.",
    )
    command.add_argument("artefact", type=Path, help="model_store/NAME/REVISION")
    command.add_argument("videos", type=Path, help="CSV with path,label; or a folder of classes")
    command.add_argument("--clip-weight", type=float, help="λ (the artefact's default)")
    command.add_argument("--runtime", choices=("onnx", "torchscript"), default="onnx")
    command.add_argument("--threads", type=int, default=2, help="of decoding and encoding (2)")
    command.set_defaults(command=_evaluate)


def _add_export(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("export", help="write the graphs of an architecture, no weights")
    command.add_argument("model", help="open_clip's name, e.g. ViT-B-16-quickgelu")
    command.add_argument("folder", type=Path)
    command.add_argument("--frames", type=int, default=8, help="frames per clip (8)")
    command.add_argument("--temporal", choices=("neighbour", "none"), default="neighbour")
    command.set_defaults(command=_export)


def _add_demo(commands: "_Commands[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "demo",
        help="make the demo model from nothing",
        description="Draw Motion World, train CLIP and Open-VCLIP on it, choose λ, publish. An "
        "interrupted run goes on where it stopped.",
    )
    default = Path(__file__).parent / "configs" / "demo.toml"
    command.add_argument("--config", type=Path, default=default, help="(configs/demo.toml)")
    command.add_argument("--work", type=Path, default=Path("runs/demo"), help="(runs/demo)")
    command.add_argument("--store", type=Path, default=Path("model_store"), help="(model_store)")
    command.add_argument("--seeds", type=int, default=1, help="fine-tunings to measure (1)")
    command.add_argument("--compare", action="store_true", help="measure plain fine-tuning too")
    command.add_argument("--samples", type=Path, help="draw sample videos into this folder")
    command.set_defaults(command=_demo)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=Path, default=Path("model_store"), help="(model_store)")
    command.add_argument("--no-activate", action="store_true", help="do not serve it yet")
    command.add_argument("--replace", action="store_true", help="replace the same weights")


def _check_reference(parsed: argparse.Namespace) -> int:
    from training.check_reference import compare_with_reference

    errors = compare_with_reference(parsed.file)
    print("\n".join(errors.lines()))
    return 0 if errors.passed else 1


def _pull(parsed: argparse.Namespace) -> int:
    import numpy as np

    from service.videoclip.preprocessing import normalize
    from training.config import ConfigError
    from training.publish import publish
    from training.pull import pull
    from training.video_list import LabelledVideo, decode_videos

    try:
        pulled = pull(
            parsed.model,
            pretrained=parsed.pretrained,
            file=parsed.file,
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
    folder = publish(
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


def _train(parsed: argparse.Namespace) -> int:
    from training.config import load_config
    from training.loop import train
    from training.run_config import RunConfig

    print(train(load_config(parsed.config, RunConfig), source=parsed.config))
    return 0


def _select(parsed: argparse.Namespace) -> int:
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


def _publish(parsed: argparse.Namespace) -> int:
    from training.config import load_config
    from training.release import release
    from training.run_config import RunConfig

    config = load_config(parsed.config, RunConfig)
    print(release(config, activate=not parsed.no_activate, replace=parsed.replace))
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
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


def _export(parsed: argparse.Namespace) -> int:
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


def _demo(parsed: argparse.Namespace) -> int:
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
    names = list(points[0].scores)
    rows = [f"{'λ':>6}  " + "  ".join(f"{name:>18}" for name in names)]
    for point in points:
        cells = (f"{point.scores[n]:.1f} ± {point.spread[n]:.1f}" for n in names)
        rows.append(f"{point.clip_weight:>6g}  " + "  ".join(f"{cell:>18}" for cell in cells))
    return rows
