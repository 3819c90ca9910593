"""`python -m training evaluate`."""

import argparse
from pathlib import Path

from training.commands.numbers import at_least_one
from training.commands.way_arguments import add_way

NAME = "evaluate"
HELP = "measure a published artefact or a run under a protocol"
DESCRIPTION = (
    "Measures a model on video files by a protocol of `python -m training protocols`, prints a "
    "table, and writes what was measured and how with --json. An artefact is measured by its "
    "exported graphs, as the service runs it; a run, or another attention than the model's own, by "
    "the network. Every video is decoded once for all λ. A video that cannot be decoded is left "
    "out and named. Classes are matched by name, whatever the case and spaces."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("model", type=Path, help="model_store/NAME/REVISION, or a run's folder")
    parser.add_argument(
        "videos",
        type=Path,
        nargs="+",
        help="a folder with a folder for each class, or a list (CSV with path,label, and others); "
        "several for a protocol with several lists",
    )
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--protocol",
        default="folder",
        help="its name, see `python -m training protocols` (folder: all labels of the list)",
    )
    measured.add_argument("--dataset", help="where a protocol has several")
    measured.add_argument("--classes", type=Path, nargs="+", default=[], help="names of classes")
    measured.add_argument("--splits", type=Path, help="folder of official split files")
    measured.add_argument("--captions", type=Path, help="sentences of videos, for retrieval")
    measured.add_argument("--only", type=Path, help="ids of the videos to take of --captions")
    measured.add_argument(
        "--spelling",
        choices=("protocol", "list"),
        default="protocol",
        help="of the labels that the text encoder reads: the protocol's, or that of the list, such "
        "as ApplyEyeMakeup, as ViFi-CLIP and Text4Vis do (protocol)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--clip-weight",
        type=float,
        nargs="+",
        help="λ, one or several (an artefact's own; 0 of a run)",
    )
    add_way(how.add_argument)
    how.add_argument(
        "--pair-rule",
        choices=("product", "cosine"),
        default="product",
        help="retrieval: with the length that a mean of unit vectors has, as Open-VCLIP and "
        "FitCLIP; or without it, as the service's search (product)",
    )
    how.add_argument("--templates", help="another template set than the model's")
    how.add_argument(
        "--temporal",
        choices=("neighbour", "none"),
        help="another attention than the model's own; torch runs the network then",
    )
    how.add_argument(
        "--runtime",
        choices=("onnx", "torchscript"),
        default="onnx",
        help="which of an artefact's graphs is run (onnx)",
    )
    how.add_argument(
        "--variant", choices=("fp16", "int8"), help="an artefact's graphs in fewer bits"
    )
    how.add_argument("--threads", type=at_least_one, default=2, help="of decoding and encoding (2)")
    parser.add_argument("--json", type=Path, help="write the results to this file")


def run(parsed: argparse.Namespace) -> int:
    """Measure a model, print the table, write the document."""
    from tqdm import tqdm

    from training.config import ConfigError
    from training.evaluate.inputs import EvaluationList, open_plan
    from training.evaluate.measure import distinct_videos, measure
    from training.evaluate.model_folder import default_clip_weight, open_model
    from training.evaluate.report import document, table, write
    from training.provenance import environment

    model = open_model(
        parsed.model,
        runtime=parsed.runtime,
        variant=parsed.variant,
        temporal=parsed.temporal,
        template_set=parsed.templates,
        views=parsed.views,
        crops=parsed.crops,
        template_mean=parsed.template_mean,
        threads=parsed.threads,
    )
    weights = parsed.clip_weight or [default_clip_weight(parsed.model)]
    for weight in weights:
        if not 0.0 <= weight <= 1.0:
            raise ConfigError(f"--clip-weight {weight}: not within 0 and 1")
    plan = open_plan(
        EvaluationList(
            videos=tuple(parsed.videos),
            protocol=parsed.protocol,
            dataset=parsed.dataset,
            classes=tuple(parsed.classes),
            splits=parsed.splits,
            captions=parsed.captions,
            only=parsed.only,
            spelling=parsed.spelling,
        )
    )
    for note in plan.notes:
        print(f"note: {note}")
    plans = {plan.protocol.title: plan}
    with tqdm(total=len(distinct_videos(plans)), desc="measure", unit="video") as bar:
        results, failed = measure(
            {"model": model},
            plans,
            clip_weights=[round(weight, 4) for weight in weights],
            rule=parsed.view_rule,
            pair_rule=parsed.pair_rule,
            threads=parsed.threads,
            memory_bytes=parsed.memory_bytes,
            on_videos=bar.update,
        )
    for path, reason in failed:
        print(f"left out: {path}: {reason}")
    found = document(
        plan,
        results["model"][plan.protocol.title],
        way=model.way,
        rule=parsed.view_rule,
        pair_rule=parsed.pair_rule,
        model=model.facts,
        failed=failed,
        environment=environment(model.facts.get("device", "cpu"), precision="fp32"),
    )
    print(f"{plan.protocol.title}, list {plan.sha256[:12]}\n{table(found)}")
    if parsed.json is not None:
        write(found, parsed.json)
        print(parsed.json)
    return 0
