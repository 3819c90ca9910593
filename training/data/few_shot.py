"""The part of a list that is learnt from: a few videos of each class, or half of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.config import ConfigError
from training.data.annotations import LabelledVideo
from training.evaluate.base_to_novel import base_and_novel
from training.evaluate.few_shot import select_shots


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Which videos of a list are taken; a table of a configuration.

    shots: K, videos of each class (the papers': 2, 4, 8, 16); None for all. classes: ``base`` is
    the more frequent half of the classes, ``novel`` the rest (ViFi-CLIP). seed: of the choice;
    equally frequent classes go to either half by it, too. It is the subset's own, so that runs of
    several seeds can share their videos. repeat: show the shots so often in a pass that it is about
    as long as without `shots` (Text4Vis as coded); epochs count such passes.

    The choice depends on list and seed alone: it is the same in every process.
    """

    shots: int | None = None
    classes: Literal["all", "base", "novel"] = "all"
    seed: int = 0
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise ConfigError(f"shots = {self.shots}: below 1")
        if self.repeat and self.shots is None:
            raise ConfigError("repeat = true: repeats shots, and without shots there are none")

    def of(self, videos: Sequence[LabelledVideo]) -> list[LabelledVideo]:
        """The videos taken; in the order of the list, or by class if there are `shots`.

        Raises FewShotError when a class has fewer than `shots`, VideoListError for a video without
        a label.
        """
        taken = list(videos)
        if self.classes != "all":
            base, novel = base_and_novel((v.class_name for v in videos), seed=self.seed)
            wanted = set(base if self.classes == "base" else novel)
            taken = [video for video in taken if video.class_name in wanted]
        if self.shots is not None:
            taken = select_shots(taken, shots=self.shots, seed=self.seed)
        return taken

    def copies(self, videos: Sequence[LabelledVideo], taken: Sequence[LabelledVideo]) -> int:
        """How often each of `taken`, which `of` took out of `videos`, is shown in a pass.

        With `repeat`, the videos of their classes over the K * c of the shots, rounded down.
        """
        if not self.repeat:
            return 1
        classes = {video.class_name for video in taken}
        return sum(video.class_name in classes for video in videos) // len(taken)
