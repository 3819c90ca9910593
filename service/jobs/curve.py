"""From ranks of right labels to a curve over λ, and to the λ that a rule recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from service.schemas_jobs import LambdaRule
from service.videoclip.ranking import are_equal, best_clip_weight

_WORDS: Final = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean top-1 over classes",
    "worst_class": "top-1 of the worst class",
}


@dataclass(frozen=True)
class ClassScore:
    """Shares in % of the videos of one class."""

    label: str
    videos: int
    top1: float
    top5: float


@dataclass(frozen=True)
class Point:
    """What was measured at one λ, shares in %.

    Attributes:
        clip_weight: the λ.
        top1: videos whose right label came first.
        top5: or among the first five; 100 with fewer than six classes.
        standard_error: of top1, as that of a share of so many videos.
        classes: each class that has videos.
    """

    clip_weight: float
    top1: float
    top5: float
    standard_error: float
    classes: tuple[ClassScore, ...]

    def value(self, metric: str) -> float:
        """Return the number that a rule names: top1, top5, mean_class or worst_class."""
        if metric == "mean_class":
            return sum(each.top1 for each in self.classes) / len(self.classes)
        if metric == "worst_class":
            return min(each.top1 for each in self.classes)
        return self.top1 if metric == "top1" else self.top5

    def answer(self) -> dict[str, Any]:
        """The point as a client sees it."""
        return {
            "lambda": self.clip_weight,
            "top1": round(self.top1, 4),
            "top5": round(self.top5, 4),
            "top1_standard_error": round(self.standard_error, 4),
            "mean_class": round(self.value("mean_class"), 4),
            "worst_class": round(self.value("worst_class"), 4),
            "classes": [
                {
                    "label": each.label,
                    "videos": each.videos,
                    "top1": round(each.top1, 4),
                    "top5": round(each.top5, 4),
                }
                for each in self.classes
            ],
        }


@dataclass(frozen=True)
class Recommendation:
    """A λ, or None if none satisfies the rule, and why in one sentence."""

    clip_weight: float | None
    why: str


def measure(
    clip_weight: float, found: Sequence[int], *, labels: Sequence[int], classes: Sequence[str]
) -> Point:
    """Return the point of one λ.

    Args:
        clip_weight: the λ.
        found: ranks of n >= 1 videos.
        labels: their right labels, positions in `classes`.
        classes: in words.
    """
    values, owners = np.asarray(found), np.asarray(labels)
    share = float((values < 1).mean())
    return Point(
        clip_weight=clip_weight,
        top1=100.0 * share,
        top5=100.0 * float((values < 5).mean()),
        standard_error=100.0 * sqrt(share * (1.0 - share) / len(values)),
        classes=tuple(
            ClassScore(
                label=classes[owner],
                videos=int((owners == owner).sum()),
                top1=100.0 * float((values[owners == owner] < 1).mean()),
                top5=100.0 * float((values[owners == owner] < 5).mean()),
            )
            for owner in sorted(set(owners.tolist()))
        ),
    )


def recommend(points: Sequence[Point], rule: LambdaRule) -> Recommendation:
    """Apply a rule to a curve: the best λ above the floor; of equals the larger."""
    allowed, floor = list(points), rule.floor
    beyond = ""
    if floor is not None:
        beyond = f" with {_WORDS[floor.metric]} of at least {floor.at_least:g} %"
        allowed = [p for p in points if p.value(floor.metric) >= floor.at_least]
        if not allowed:
            reached = {p.clip_weight: p.value(floor.metric) for p in points}
            most = best_clip_weight(reached)
            return Recommendation(
                None,
                f"No lambda reaches {_WORDS[floor.metric]} of {floor.at_least:g} %; the most is"
                f" {reached[most]:.1f} % at {most:g}.",
            )
    words = _WORDS[rule.maximise]
    values = {p.clip_weight: p.value(rule.maximise) for p in allowed}
    chosen = best_clip_weight(values)
    (best,) = (p for p in allowed if p.clip_weight == chosen)
    value = values[chosen]
    videos = sum(each.videos for each in best.classes)
    equals = [weight for weight, other in values.items() if are_equal(other, value)]
    text = f"{best.clip_weight:g} has the highest {words}{beyond}: {value:.1f} % of {videos} videos"
    if len(equals) > 1:
        text += f"; {len(equals)} lambdas are equal in that, of them the largest forgets least"
    near = [p.clip_weight for p in allowed if value - p.value("top1") <= best.standard_error]
    if rule.maximise == "top1" and len(near) > len(equals):
        text += (
            f"; {min(near):g} to {max(near):g} are within one standard error"
            f" ({best.standard_error:.1f} points)"
        )
    return Recommendation(best.clip_weight, f"{text}.")
