"""Labelled clips in memory, on which graphs in fewer bits are compared with the full ones."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing, Sampling
from training.config import ConfigError
from training.data.annotations import LabelledVideo
from training.evaluate.plan import ClassPart, Plan
from training.select_lambda import EvaluationSet
from training.video_list import decode_videos

VIDEOS = 256
"""Of each set, if nothing else is said: every video is seen by every form at three λ."""


def variant_sets(
    plans: Mapping[str, Plan],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    videos: int = VIDEOS,
    threads: int = 2,
    report: Callable[[str], None] = print,
) -> dict[str, EvaluationSet]:
    """Decode what of the plans has labels, as the service would; by the plan's name and the part's.

    videos: at most so many of each part, from its beginning to its end at equal distances. report:
    gets one line for each video that is left out. Raises ConfigError when no plan has labels,
    VideoListError when no video of a part can be decoded.
    """
    sets = {}
    for name, plan in plans.items():
        for part in plan.parts:
            if not isinstance(part, ClassPart):
                continue
            decoded = decode_videos(
                _spread(part, videos),
                sampling=sampling,
                preprocessing=preprocessing,
                threads=threads,
            )
            for path, reason in decoded.failed:
                report(f"left out: {path}: {reason}")
            sets[name if len(plan.parts) == 1 else f"{name}, {part.name}"] = EvaluationSet(
                frames=decoded.frames,
                labels=decoded.label_ids(part.classes),
                classes=part.classes,
            )
    if not sets:
        raise ConfigError(
            f"variants: none of {', '.join(plans)} has labels, and what graphs in fewer bits lose "
            "is measured on videos with labels"
        )
    return sets


def some_of(sets: Mapping[str, EvaluationSet], *, videos: int = VIDEOS) -> dict[str, EvaluationSet]:
    """At most so many videos of each set, at equal distances; sets that share frames still do."""
    found = {}
    frames: dict[int, NDArray[np.uint8]] = {}
    for name, each in sets.items():
        step = -(-len(each.labels) // videos)
        shown = frames.setdefault(id(each.frames), each.frames[::step])
        found[name] = EvaluationSet(shown, each.labels[::step], each.classes)
    return found


def _spread(part: ClassPart, most: int) -> list[LabelledVideo]:
    count = min(most, len(part.videos))
    places = [i * len(part.videos) // count for i in range(count)]
    return [
        LabelledVideo(path=part.videos[place], label=part.classes[part.labels[place]])
        for place in places
    ]
