"""Rules that choose λ on a measured curve."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.videoclip.manifest import LambdaPoint
from service.videoclip.ranking import best_clip_weight
from training.errors import Refusal
from training.evaluate.base_to_novel import harmonic_mean

RuleName = Literal["best_mean", "harmonic_mean", "zero_shot_above_floor", "knee"]


class SelectionError(Refusal):
    """No λ satisfies the rule, or it asks for what was not measured; says what is missing."""


@dataclass(frozen=True)
class SelectionRule:
    """Which λ is chosen. Between equals the larger λ wins: it forgets less.

    maximise: the sets whose mean counts, as a rule the zero-shot targets. within: set -> percentage
    points that it may lose against CLIP itself (λ = 1). at_least: set -> percentage that it must
    reach. Both limits hold under every rule.

    rule: ``best_mean``, the largest mean over `maximise`. ``harmonic_mean``, the largest harmonic
    mean of `closed_set` and that mean. ``zero_shot_above_floor``, the largest mean while
    `closed_set` reaches its floor. ``knee``, the largest sum of `closed_set` and that mean, each
    scaled to the range that it has on the curve; where each end of the curve is best at one of the
    two, that is the point furthest above the line between the ends.

    closed_set: what the model was tuned for, the x axis of the picture of the curve; needed by
    every rule but ``best_mean``. floor, for
    ``zero_shot_above_floor``: percentage that `closed_set` must reach; or floor_below_best:
    percentage points that it may lie below its best on the curve.
    """

    maximise: tuple[str, ...]
    within: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)
    rule: RuleName = "best_mean"
    closed_set: str | None = None
    floor: float | None = None
    floor_below_best: float | None = None

    def __post_init__(self) -> None:
        if not self.maximise:
            raise ValueError("maximise: names no set")
        if self.closed_set is None and self.rule != "best_mean":
            raise ValueError(f"closed_set: missing, and rule {self.rule} needs it")
        floors = sum(value is not None for value in (self.floor, self.floor_below_best))
        if floors != (self.rule == "zero_shot_above_floor"):
            raise ValueError(
                f"floor, floor_below_best: {floors} given; rule zero_shot_above_floor needs one, "
                "the others none"
            )
        if self.closed_set in self.maximise and self.rule != "best_mean":
            raise ValueError(f"closed_set: {self.closed_set!r} is in maximise, too")

    def words(self) -> str:
        """The rule as the beginning of a sentence, for the manifest."""
        targets = ", ".join(self.maximise)
        text = {
            "best_mean": f"largest mean over {targets}",
            "harmonic_mean": f"largest harmonic mean of {self.closed_set} and the mean over "
            f"{targets}",
            "zero_shot_above_floor": f"largest mean over {targets} where {self.closed_set} "
            + (
                f"reaches {self.floor:g} %"
                if self.floor is not None
                else f"is within {self.floor_below_best or 0:g} points of its best"
            ),
            "knee": f"knee of {self.closed_set} against the mean over {targets}",
        }[self.rule]
        limits = [f"{n} within {x:g} points of CLIP's own" for n, x in self.within.items()]
        limits += [f"{n} at least {x:g} %" for n, x in self.at_least.items()]
        return f"{text}, with {' and '.join(limits)}" if limits else text

    def sets(self) -> set[str]:
        """Every set that the rule looks at."""
        own = {self.closed_set} if self.closed_set is not None else set()
        return {*self.maximise, *self.within, *self.at_least, *own}


@dataclass(frozen=True)
class Choice:
    """The chosen λ, and why, in one sentence."""

    clip_weight: float
    reason: str


def choose(points: Sequence[LambdaPoint], rule: SelectionRule) -> Choice:
    """Apply the rule to a measured curve.

    Raises SelectionError when no λ satisfies it, a set was not measured, or `within` is asked of a
    curve without λ = 1.
    """
    unmeasured = sorted(rule.sets() - set(points[0].scores)) if points else sorted(rule.sets())
    if unmeasured:
        raise SelectionError(f"the rule needs sets that were not measured: {', '.join(unmeasured)}")
    floors = _floors(points, rule)
    allowed = [p for p in points if all(p.scores[n] >= f for n, f in floors.items())]
    if not allowed:
        best = "; ".join(
            f"{n} needs {f:.1f} %, and reaches at most {max(p.scores[n] for p in points):.1f} %"
            for n, f in floors.items()
        )
        raise SelectionError(f"no λ satisfies the rule ({rule.words()}): {best}")
    merits = {p.clip_weight: _merit(p, points, rule) for p in points}
    weight = best_clip_weight({p.clip_weight: merits[p.clip_weight] for p in allowed})
    (chosen,) = (p for p in allowed if p.clip_weight == weight)
    scores = ", ".join(f"{n} {chosen.scores[n]:.1f} %" for n in sorted(rule.sets()))
    digits = 2 if rule.rule == "knee" else 1
    ends = [
        f"{merits[end]:.{digits}f} at λ = {end:g}"
        for end in (0.0, 1.0)
        if end in merits and end != chosen.clip_weight
    ]
    against = f", against {' and '.join(ends)}" if ends else ""
    return Choice(
        clip_weight=round(chosen.clip_weight, 4),
        reason=f"{rule.words()}: λ = {chosen.clip_weight:g} ({scores}) gives "
        f"{merits[chosen.clip_weight]:.{digits}f}{against}",
    )


def _floors(points: Sequence[LambdaPoint], rule: SelectionRule) -> dict[str, float]:
    floors = dict(rule.at_least)
    if rule.within:
        own = [p for p in points if p.clip_weight == 1.0]
        if not own:
            raise SelectionError("the rule compares with CLIP, but λ = 1 was not measured")
        for name, loss in rule.within.items():
            floors[name] = max(own[0].scores[name] - loss, floors.get(name, 0.0))
    if rule.rule == "zero_shot_above_floor" and rule.closed_set is not None:
        best = max(p.scores[rule.closed_set] for p in points)
        floor = rule.floor if rule.floor is not None else best - (rule.floor_below_best or 0.0)
        floors[rule.closed_set] = max(floor, floors.get(rule.closed_set, 0.0))
    return floors


def _merit(point: LambdaPoint, points: Sequence[LambdaPoint], rule: SelectionRule) -> float:
    zero_shot = _mean(point, rule)
    if rule.closed_set is None or rule.rule in ("best_mean", "zero_shot_above_floor"):
        return zero_shot
    closed = point.scores[rule.closed_set]
    if rule.rule == "harmonic_mean":
        return harmonic_mean(closed, zero_shot)
    return _scaled(closed, [p.scores[rule.closed_set] for p in points]) + _scaled(
        zero_shot, [_mean(p, rule) for p in points]
    )


def _mean(point: LambdaPoint, rule: SelectionRule) -> float:
    return sum(point.scores[name] for name in rule.maximise) / len(rule.maximise)


def _scaled(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    return (value - low) / (high - low) if high > low else 0.0
