"""Putting what a command made into a model store, as its arguments say."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.commands.store_arguments import add_store

if TYPE_CHECKING:
    from torch import Tensor

    from training.artefact import Description

_TEXTS = ("a photo of a dog.", "someone is riding a bicycle along a river")


def add_publication(parser: argparse.ArgumentParser) -> None:
    """Declare where the artefact goes, and what its exports are compared on."""
    parser.add_argument(
        "--video",
        type=Path,
        action="append",
        default=[],
        help="compare the exported graphs with the network on this video, too; may be repeated",
    )
    parser.add_argument(
        "--evaluate",
        type=Path,
        action="append",
        default=[],
        metavar="LIST",
        help="add graphs in float16 and int8 if they lose little on these labelled videos, a list "
        "or a folder of classes; may be repeated",
    )
    parser.add_argument(
        "--variant-loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="of top-1 on each LIST, the most that such graphs may lose (1)",
    )
    add_store(parser)


def publish_as_told(
    parsed: argparse.Namespace,
    description: "Description",
    *,
    clip: "Mapping[str, Tensor]",
    tuned: "Mapping[str, Tensor]",
) -> Path:
    """Publish, and print what was left out; returns the folder.

    Raises ConfigError or another Refusal for lists that cannot be used; else as `publish`.
    """
    import numpy as np

    from service.videoclip.preprocessing import normalize
    from training.config import ConfigError
    from training.data.annotations import LabelledVideo
    from training.evaluate.inputs import EvaluationList, open_plan
    from training.publish import publish
    from training.variant_sets import variant_sets
    from training.video_list import decode_videos

    if not parsed.variant_loss >= 0:
        raise ConfigError(f"--variant-loss {parsed.variant_loss:g}: below 0")
    labelled = None
    if parsed.evaluate:
        labelled = variant_sets(
            {str(path): open_plan(EvaluationList(videos=(path,))) for path in parsed.evaluate},
            sampling=description.sampling,
            preprocessing=description.preprocessing,
        )
    clips = None
    if parsed.video:
        decoded = decode_videos(
            [LabelledVideo(path=path, label="") for path in parsed.video],
            sampling=description.sampling,
            preprocessing=description.preprocessing,
        )
        for path, reason in decoded.failed:
            print(f"left out: {path}: {reason}")
        clips = np.concatenate(
            [normalize(views, description.preprocessing) for views in decoded.frames]
        )
    else:
        print("no --video given: the exports are compared on random frames only")
    return publish(
        description,
        clip=clip,
        tuned=tuned,
        store=parsed.store,
        real_clips=clips,
        real_texts=_TEXTS,
        evaluation_sets=labelled,
        variant_bound=parsed.variant_loss,
        activate=not parsed.no_activate,
        replace=parsed.replace,
    )
