"""Measure λ from 0 to 1, and choose one by a rule that is written down."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.videoclip.manifest import LambdaPoint, Preprocessing
from service.videoclip.pooling import Pooling
from training.evaluate.zero_shot import ZeroShot, embed_videos, zero_shot
from training.interpolate import interpolate
from training.models.network import VideoCLIP

DEFAULT_STEPS = 10
Classifier = Callable[[VideoCLIP, Sequence[str]], NDArray[np.float32]]
Sweep = dict[str, dict[float, ZeroShot]]


class SelectionError(ValueError):
    """No λ satisfies the rule; the message says which constraint fails everywhere."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Labelled clips in memory.

    frames: uint8 (n, T, S, S, 3). labels: integer (n,), positions in `classes`. classes: the labels
    to choose from, in words. Sets that share one `frames` array are embedded once for all of them.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.integer]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SelectionRule:
    """Which λ is chosen: the largest mean over `maximise` among those that satisfy the rest.

    within: set -> percentage points that it may lose against CLIP itself (λ = 1). at_least: set ->
    percentage that it must reach. Between equal means the larger λ wins: it forgets less.
    """

    maximise: tuple[str, ...]
    within: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)

    def words(self) -> str:
        """The rule as a sentence, for the manifest."""
        text = f"largest mean top-1 over {', '.join(self.maximise)}"
        limits = [f"{n} within {x:g} points of CLIP's own" for n, x in self.within.items()]
        limits += [f"{n} at least {x:g} %" for n, x in self.at_least.items()]
        return f"{text}, with {' and '.join(limits)}" if limits else text


@dataclass(frozen=True)
class Choice:
    """The chosen λ, and why, in one sentence."""

    clip_weight: float
    reason: str


def clip_weights(steps: int = DEFAULT_STEPS) -> tuple[float, ...]:
    """Equal distances from 0 to 1, both included, rounded to 4 decimals."""
    if steps < 1:
        raise ValueError(f"steps: {steps} is below 1")
    return tuple(round(i / steps, 4) for i in range(steps + 1))


def sweep(
    network: VideoCLIP,
    *,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    sets: Mapping[str, EvaluationSet],
    classifier: Classifier,
    preprocessing: Preprocessing,
    weights: Sequence[float],
    pooling: Pooling = "normalize_then_mean",
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> Sweep:
    """Score every set at every λ. The network runs once over each array of frames for each λ.

    classifier: gives float32 (C, D) unit rows for labels in words, from the network as it is.
    Returns set -> clip_weight -> scores. The network is left at the last λ.
    """
    if not sets:
        raise ValueError("no sets to evaluate")
    scores: Sweep = {name: {} for name in sets}
    for clip_weight in weights:
        network.load_state_dict(interpolate(clip, tuned, clip_weight=clip_weight), strict=True)
        embeddings: dict[int, NDArray[np.float32]] = {}
        for name, data in sets.items():
            if id(data.frames) not in embeddings:
                embeddings[id(data.frames)] = embed_videos(
                    network,
                    data.frames,
                    preprocessing=preprocessing,
                    pooling=pooling,
                    batch_size=batch_size,
                    on_batch=on_batch,
                )
            scores[name][clip_weight] = zero_shot(
                embeddings[id(data.frames)], classifier(network, data.classes), data.labels
            )
    return scores


def curve(sweeps: Sequence[Sweep]) -> tuple[LambdaPoint, ...]:
    """Top-1 over several seeds, ascending in λ: mean and sample standard deviation (0 for one).

    Raises ValueError when the sweeps are of different sets or different λ.
    """
    if not sweeps:
        raise ValueError("no sweeps")
    layout = {name: sorted(points) for name, points in sweeps[0].items()}
    if any({n: sorted(p) for n, p in other.items()} != layout for other in sweeps[1:]):
        raise ValueError("the sweeps are of different sets or different λ")
    points = []
    for clip_weight in next(iter(layout.values())):
        top1 = {n: [float(s[n][clip_weight].top1) for s in sweeps] for n in layout}
        points.append(
            LambdaPoint(
                clip_weight=clip_weight,
                scores={n: float(np.mean(v)) for n, v in top1.items()},
                spread={
                    n: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for n, v in top1.items()
                },
            )
        )
    return tuple(points)


def choose(points: Sequence[LambdaPoint], rule: SelectionRule) -> Choice:
    """Apply the rule to a measured curve.

    Raises SelectionError when no λ satisfies it, ValueError for a set that was not measured and for
    `within` with a curve that lacks λ = 1.
    """
    used = {*rule.maximise, *rule.within, *rule.at_least}
    unmeasured = sorted(used - set(points[0].scores))
    if unmeasured or not rule.maximise:
        raise ValueError(f"the rule needs sets that were measured; not: {', '.join(unmeasured)}")
    floors = dict(rule.at_least)
    if rule.within:
        own = [p for p in points if p.clip_weight == 1.0]
        if not own:
            raise ValueError("the rule compares with CLIP, but λ = 1 was not measured")
        for name, loss in rule.within.items():
            floors[name] = max(own[0].scores[name] - loss, floors.get(name, 0.0))
    allowed = [p for p in points if all(p.scores[n] >= f for n, f in floors.items())]
    if not allowed:
        best = "; ".join(
            f"{n} needs {f:.1f} %, and reaches at most {max(p.scores[n] for p in points):.1f} %"
            for n, f in floors.items()
        )
        raise SelectionError(f"no λ satisfies the rule ({rule.words()}): {best}")

    def merit(point: LambdaPoint) -> tuple[float, float]:
        mean = float(np.mean([point.scores[n] for n in rule.maximise]))
        return round(mean, 6), point.clip_weight

    chosen = max(allowed, key=merit)
    scores = ", ".join(f"{n} {chosen.scores[n]:.1f} %" for n in sorted(used))
    return Choice(
        clip_weight=round(chosen.clip_weight, 4),
        reason=f"{rule.words()}: λ = {chosen.clip_weight:g} ({scores})",
    )
