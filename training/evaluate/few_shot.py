"""Few-shot: K training videos of each class, the same ones on every machine and every rank."""

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from training.data.annotations import LabelledVideo
from training.errors import Refusal


class FewShotError(Refusal):
    """A class has fewer videos than shots; names it."""


def select_shots(videos: Sequence[LabelledVideo], *, shots: int, seed: int) -> list[LabelledVideo]:
    """`shots` videos of each class, classes sorted by name.

    The choice depends on seed, class name, and the order of that class's videos in the list, on
    nothing else: other classes do not change it, and more shots with the same seed only add to it.
    Raises FewShotError when a class has too few, ValueError for fewer than one shot.
    """
    if shots < 1:
        raise ValueError(f"shots: {shots} is below 1")
    members: defaultdict[str, list[LabelledVideo]] = defaultdict(list)
    for video in videos:
        members[video.class_name].append(video)
    chosen = []
    for label, own in sorted(members.items()):
        if len(own) < shots:
            raise FewShotError(f"class {label!r} has {len(own)} videos, {shots} shots are wanted")
        generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
        chosen += [own[i] for i in generator.permutation(len(own))[:shots]]
    return chosen
