"""`python -m training calibrate`."""

import argparse
from pathlib import Path

from training.commands.numbers import at_least_one, gibibytes

NAME = "calibrate"
HELP = "fit an artefact's independent scores to labelled videos"
DESCRIPTION = (
    "Fits two numbers for each λ (Platt scaling) that turn independent scores into probabilities, "
    "prints how far scores and frequencies were apart before and are after (ECE, each video scored "
    "by a fit to the others), and writes both into the artefact's manifest.json, which its "
    "MODEL_CARD.md points to. No vector changes, so the revision stays. Take videos that λ was not "
    "chosen on, and labels such as will be asked: how often a label is true is part of what is "
    "fitted. A service reads the manifest when it starts or activates the artefact. Publishing the "
    "same weights again forgets the fit."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("artefact", type=Path, help="model_store/NAME/REVISION")
    parser.add_argument(
        "videos", type=Path, help="a folder with a folder for each class, or a list"
    )
    parser.add_argument("--classes", type=Path, help="more labels than the videos have")
    parser.add_argument(
        "--clip-weight",
        type=float,
        nargs="+",
        help="λ to fit at; in between the service interpolates (0, 0.25, 0.5, 0.75, 1 and the "
        "artefact's own)",
    )
    parser.add_argument("--folds", type=int, default=5, help="of the check (5)")
    parser.add_argument(
        "--runtime",
        choices=("onnx", "torchscript"),
        default="onnx",
        help="which of an artefact's graphs is run (onnx)",
    )
    parser.add_argument(
        "--threads", type=at_least_one, default=2, help="of decoding and encoding (2)"
    )
    parser.add_argument(
        "--memory-gib",
        type=gibibytes,
        default="2",
        dest="memory_bytes",
        metavar="GIB",
        help="for decoded frames (2)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be written, and write nothing"
    )


def run(parsed: argparse.Namespace) -> int:
    """Fit, print the reliability, write the manifest."""
    from tqdm import tqdm

    from training.calibrate import calibrate, require_enough
    from training.config import ConfigError
    from training.evaluate.artefact import PublishedModel
    from training.evaluate.embedding import embed_once
    from training.evaluate.inputs import EvaluationList, open_plan
    from training.evaluate.measure import distinct_videos
    from training.rewrite_manifest import rewrite_manifest

    if parsed.folds < 2:
        raise ConfigError(f"--folds {parsed.folds}: below 2")
    model = PublishedModel(parsed.artefact, runtime=parsed.runtime, threads=parsed.threads)
    manifest = model.manifest
    default = (0.0, 0.25, 0.5, 0.75, 1.0, manifest.default_clip_weight)
    asked = parsed.clip_weight or default
    for weight in asked:
        if not 0.0 <= weight <= 1.0:
            raise ConfigError(f"--clip-weight {weight}: not within 0 and 1")
    weights = sorted({round(weight, 4) for weight in asked})
    classes = () if parsed.classes is None else (parsed.classes,)
    plan = open_plan(EvaluationList(videos=(parsed.videos,), classes=classes))
    videos = distinct_videos({"videos": plan})
    require_enough(len(videos), folds=parsed.folds)
    with tqdm(total=len(videos), desc="measure", unit="video") as bar:
        embedded = embed_once(
            {"model": model},
            videos,
            clip_weights=weights,
            threads=parsed.threads,
            memory_bytes=parsed.memory_bytes,
            on_videos=bar.update,
        )
    for path, reason in embedded.failed:
        print(f"left out: {path}: {reason}")
    fitted = calibrate(
        model,
        plan,
        embedded,
        name="model",
        clip_weights=weights,
        background=manifest.background_labels,
        folds=parsed.folds,
    )
    print(
        f"{fitted.videos} videos, {fitted.labels} labels, "
        f"{100 * fitted.true_pairs / fitted.pairs:.2f} % of the pairs are true"
    )
    print("| λ | slope | intercept | ECE | ECE after | log loss | log loss after |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for p in fitted.points:
        print(
            f"| {p.clip_weight:g} | {p.slope:.3f} | {p.intercept:.3f} | {p.before.ece:.4f} | "
            f"{p.after.ece:.4f} | {p.before.log_loss:.4f} | {p.after.log_loss:.4f} |"
        )
    if not parsed.dry_run:
        rewrite_manifest(parsed.artefact, manifest.model_copy(update={"calibration": fitted}))
        print(parsed.artefact / "manifest.json")
    return 0
