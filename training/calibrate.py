"""Fit independent scores to labelled videos, so that they mean frequencies.

Platt's line through the margin: two numbers for each λ. It keeps the order of labels, needs few
videos, and goes on sensibly where no score was seen. Isotonic regression would need far more pairs,
ties scores that differ, and says nothing beyond the highest one it saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.videoclip.background import background_labels
from service.videoclip.calibration import (
    Calibration,
    CalibrationPoint,
    Reliability,
    ReliabilityBin,
)
from service.videoclip.independent import Platt, background_level, independent
from training.errors import Refusal
from training.evaluate.embedding import Embedded
from training.evaluate.model import Model
from training.evaluate.plan import ClassPart, Plan
from training.evaluate.views import video_vectors

BINS = 15
FOLDS = 5
MIN_VIDEOS = 20
_STEPS = 100
_TOLERANCE = 1e-10

Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]


class CalibrationError(Refusal):
    """Videos that scores cannot be fitted to; says why."""


@dataclass(frozen=True, eq=False)
class Margins:
    """What is fitted. values: float64 (n, C), of n videos and C labels. truth: bool (n, C)."""

    values: Floats
    truth: Truth


def fit_platt(values: Floats, truth: Truth) -> Platt:
    """The slope and intercept of the highest likelihood, by Newton's method with halved steps.

    values: margins, any shape. truth: bool, alike. The targets are Platt's, drawn in from 0 and 1
    by one count each (Platt 1999, section 2.2), so that margins that part true from wrong do not
    ask for an endless slope. Raises CalibrationError when there is but one kind of pairs, all
    margins are equal, or true pairs do not have the larger ones.
    """
    x, is_true = np.ravel(values), np.ravel(truth)
    positives, negatives = int(is_true.sum()), int((~is_true).sum())
    if positives == 0 or negatives == 0:
        raise CalibrationError(f"{positives} true pairs, {negatives} wrong ones: both are needed")
    if np.ptp(x) == 0.0:
        raise CalibrationError("all videos and labels have the same score")
    targets = np.where(is_true, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    line = np.array([1.0, 0.0])
    loss = _loss(line, x, targets)
    for _ in range(_STEPS):
        scores = independent(line[0] * x + line[1], level=0.0)
        slack = scores - targets
        weights = scores * (1.0 - scores)
        gradient = np.array([np.mean(slack * x), np.mean(slack)])
        curvature = np.array(
            [
                [np.mean(weights * x * x), np.mean(weights * x)],
                [np.mean(weights * x), np.mean(weights)],
            ]
        )
        # The ridge matters only where all scores are at 0 or 1 and the curvature vanishes.
        direction = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        size, lower = 1.0, loss
        while size > 1e-12:
            lower = _loss(line - size * direction, x, targets)
            if lower < loss:
                break
            size /= 2.0
        if loss - lower <= _TOLERANCE:
            break
        line, loss = line - size * direction, lower
    slope, intercept = float(line[0]), float(line[1])
    if not slope > 0.0:
        raise CalibrationError("labels that are true of a video do not score higher on it")
    return Platt(slope=slope, intercept=intercept)


def out_of_fold(margins: Margins, *, folds: int = FOLDS) -> Floats:
    """Scores (n, C) of each video by a fit to the videos of the other folds.

    Videos are dealt to folds by their place in the list, which is shuffled with a fixed seed.
    """
    order = np.random.default_rng(0).permutation(len(margins.values))
    scores = np.empty_like(margins.values)
    for fold in range(folds):
        own = np.zeros(len(order), dtype=np.bool_)
        own[order[fold::folds]] = True
        platt = fit_platt(margins.values[~own], margins.truth[~own])
        scores[own] = independent(margins.values[own], level=0.0, calibration=platt)
    return scores


def reliability(scores: Floats, truth: Truth, *, bins: int = BINS) -> Reliability:
    """Expected calibration error over bins of equal width, log loss, and the bins with pairs.

    scores: in [0, 1], any shape. truth: bool, alike.
    """
    p, is_true = np.ravel(scores), np.ravel(truth)
    # (low, high], and 0 itself in the first.
    place = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    found, ece = [], 0.0
    for i in range(bins):
        own = place == i
        if not own.any():
            continue
        mean, share = float(p[own].mean()), float(is_true[own].mean())
        ece += float(own.mean()) * abs(mean - share)
        found.append(
            ReliabilityBin(
                low=i / bins,
                high=(i + 1) / bins,
                pairs=int(own.sum()),
                mean_score=mean,
                share_true=share,
            )
        )
    chance = np.where(is_true, p, 1.0 - p)
    # A score of 0 for a true pair would be an endless loss; floats end at about 1e-308.
    log_loss = -float(np.log(np.maximum(chance, np.finfo(np.float64).tiny)).mean())
    return Reliability(ece=min(ece, 1.0), log_loss=max(log_loss, 0.0), bins=tuple(found))


def measure_margins(
    model: Model, part: ClassPart, features: NDArray[np.float32], *, background: Sequence[str]
) -> Margins:
    """Margins of every video and class, as the service computes them, at the model's present λ.

    features: float32 (n, V, D), of the part's videos.
    """
    vectors = video_vectors(features, pooling=model.way.pooling)
    scale = model.logit_scale
    logits = scale * (vectors @ model.classifier(part.classes).T).astype(np.float64)
    others, _ = background_labels(background)
    around = scale * (vectors @ model.classifier(others).T).astype(np.float64)
    levels = np.array([background_level(row) for row in around])
    truth = np.zeros(logits.shape, dtype=np.bool_)
    truth[np.arange(len(truth)), part.labels] = True
    return Margins(values=logits - levels[:, None], truth=truth)


def require_enough(videos: int, *, folds: int = FOLDS) -> None:
    """Raise CalibrationError for fewer videos than a fit and its check need."""
    needed = max(MIN_VIDEOS, folds)
    if videos < needed:
        raise CalibrationError(f"{videos} videos to fit to: at least {needed} are needed")


def calibrate(
    model: Model,
    plan: Plan,
    embedded: Embedded,
    *,
    name: str,
    clip_weights: Sequence[float],
    background: Sequence[str],
    folds: int = FOLDS,
) -> Calibration:
    """Fit at every λ. embedded: the plan's videos by the model called `name`, at these λ.

    background: the artefact's own background labels. Raises CalibrationError for a plan of several
    parts, fewer than `MIN_VIDEOS` videos, or videos that cannot be fitted to.
    """
    if len(plan.parts) != 1 or not isinstance(plan.parts[0], ClassPart):
        raise CalibrationError(f"{plan.protocol.title}: one set of labelled videos is wanted")
    part = plan.parts[0].only(embedded.videos)
    require_enough(len(part.videos), folds=folds)
    place = {path: row for row, path in enumerate(embedded.videos)}
    rows = [place[path] for path in part.videos]
    points = []
    for weight in sorted(clip_weights):
        model.set_clip_weight(weight)
        margins = measure_margins(
            model, part, embedded.features[name, weight][rows], background=background
        )
        platt = fit_platt(margins.values, margins.truth)
        points.append(
            CalibrationPoint(
                clip_weight=weight,
                slope=platt.slope,
                intercept=platt.intercept,
                before=reliability(independent(margins.values, level=0.0), margins.truth),
                after=reliability(out_of_fold(margins, folds=folds), margins.truth),
            )
        )
    return Calibration(
        template_set=model.way.template_set,
        list_sha256=plan.sha256,
        videos=len(part.videos),
        labels=len(part.classes),
        pairs=len(part.videos) * len(part.classes),
        true_pairs=len(part.videos),
        folds=folds,
        points=tuple(points),
    )


def _loss(line: Floats, x: Floats, targets: Floats) -> float:
    margins = line[0] * x + line[1]
    # log(1 + exp(m)) - t·m, without overflow.
    return float(np.mean(np.logaddexp(0.0, margins) - targets * margins))
