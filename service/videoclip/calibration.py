"""Calibration: independent scores as probabilities, with the reliability that was measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from service.videoclip.independent import Platt
from service.videoclip.input_spec import Finite, Frozen, Share


class ReliabilityBin(Frozen):
    """Pairs of a video and a label whose score lies in (low, high], or at 0 in the first bin."""

    low: Share
    high: Share
    pairs: int = Field(ge=1)
    mean_score: Share
    share_true: Share


class Reliability(Frozen):
    """How far scores are from frequencies.

    ece: expected calibration error (Guo et al. 2017, section 2): the mean distance of score and
    share of true pairs over the bins, weighted by their pairs. log_loss: mean over the pairs, in
    nats. bins: those with pairs, ascending.
    """

    ece: Share
    log_loss: Finite = Field(ge=0.0)
    bins: tuple[ReliabilityBin, ...]


class CalibrationPoint(Frozen):
    """The fit at one λ: ``sigmoid(slope * margin + intercept)``, see `Platt`.

    before: of the plain scores. after: of the fit, each pair scored by a fit to other videos.
    """

    clip_weight: Share
    slope: Finite = Field(gt=0.0)
    intercept: Finite
    before: Reliability
    after: Reliability


class Calibration(Frozen):
    """Fits at several λ, all to the same labelled videos; part of the manifest.

    A probability is meant for videos and labels like those: the share of true pairs, `true_pairs`
    of `pairs`, is part of what was fitted. template_set: in which the labels were encoded.
    """

    method: Literal["platt"] = "platt"
    template_set: str
    list_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    videos: int = Field(ge=1)
    labels: int = Field(ge=1)
    pairs: int = Field(ge=1)
    true_pairs: int = Field(ge=1)
    folds: int = Field(ge=2)
    points: tuple[CalibrationPoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        weights = [point.clip_weight for point in self.points]
        if any(low >= high for low, high in pairwise(weights)):
            raise ValueError(f"points: λ must ascend: {weights}")
        return self

    def at(self, clip_weight: float) -> Platt | None:
        """The fit at a λ, in between two fitted ones by a straight line; None outside of them."""
        for low, high in pairwise((self.points[0], *self.points)):
            if low.clip_weight <= clip_weight <= high.clip_weight:
                span = high.clip_weight - low.clip_weight
                share = (clip_weight - low.clip_weight) / span if span > 0 else 1.0
                return Platt(
                    slope=(1 - share) * low.slope + share * high.slope,
                    intercept=(1 - share) * low.intercept + share * high.intercept,
                )
        return None
