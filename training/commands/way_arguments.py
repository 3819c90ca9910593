"""How models are shown videos and labels, as the arguments of `evaluate` and `select` say."""

import argparse
from collections.abc import Callable

from training.commands.numbers import gibibytes


def add_way(add_argument: Callable[..., argparse.Action]) -> None:
    """Declare views, crops, templates' mean, and the memory for what is decoded."""
    add_argument(
        "--views",
        type=int,
        help="clips of a video, of the model's own kind; its own number if not given. Strided ones "
        "are spread as in Open-VCLIP's released test, which takes 3. Where a model's clip reaches "
        "over the whole video, several show one random moment of each part: as ViFi-CLIP measures "
        "4, but drawn by a fixed seed, where its code draws anew each time. How Text4Vis takes its "
        "4 is not described: these stand for them",
    )
    add_argument(
        "--crops",
        type=int,
        choices=(1, 3),
        default=1,
        help="squares of every picture: the middle, or three along the longer side, as ViFi-CLIP's "
        "code cuts them, each of which counts as a view. Published 4x3 views are --views 4 --crops "
        "3, with --view-rule sum_of_softmax for ViFi-CLIP and mean_of_features for Text4Vis (1)",
    )
    add_argument(
        "--view-rule",
        choices=("sum_of_logits", "mean_of_features", "sum_of_softmax"),
        default="sum_of_logits",
        help="how views become scores: Open-VCLIP, Text4Vis, ViFi-CLIP (sum_of_logits)",
    )
    add_argument(
        "--template-mean",
        choices=("unit", "plain"),
        default="unit",
        help="whether a label's mean over its templates is made a unit vector again: the service, "
        "Open-VCLIP; or left as it is: FitCLIP's released evaluation (unit)",
    )
    add_argument(
        "--memory-gib",
        type=gibibytes,
        default="2",
        dest="memory_bytes",
        metavar="GIB",
        help="for decoded frames (2)",
    )
