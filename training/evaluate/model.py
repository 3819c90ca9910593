"""What an evaluation needs of a model, whether a network or an exported graph runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.videoclip.clips import Plan
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pooling import Pooling, TemplateMean
from service.videoclip.prompts import TEMPLATES
from training.evaluate.clip_plans import clip_plan
from training.evaluate.crops import Crops


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is shown videos and texts. All of it decides a result.

    sparse_views: 1 for the clips of `sampling`, else see `training.evaluate.clip_plans`. crops:
    squares of a picture, see `training.evaluate.crops`. template_mean: see
    `service.videoclip.pooling.text_classifier`. temporal: "neighbour" or "none"; None for a graph,
    which cannot tell.
    """

    sampling: Sampling
    preprocessing: Preprocessing
    pooling: Pooling
    template_set: str
    sparse_views: int = 1
    crops: Crops = 1
    template_mean: TemplateMean = "unit"
    temporal: str | None = None

    @property
    def views(self) -> int:
        """V, of one video: its clips, times the squares of each."""
        return self.crops * self.sparse_views * self.sampling.views

    def facts(self) -> dict[str, Any]:
        """All of it as JSON, for results, with the templates in words."""
        return {
            "temporal": self.temporal,
            "template_set": self.template_set,
            "template_mean": self.template_mean,
            "templates": list(TEMPLATES[self.template_set]),
            "pooling": self.pooling,
            "sampling": self.sampling.model_dump(mode="json"),
            "sparse_views": self.sparse_views,
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "crops": self.crops,
        }

    def clip_plan(self, path: Path) -> Plan:
        """When this video is looked at, see `training.evaluate.clip_plans`."""
        return clip_plan(self.sampling, sparse_views=self.sparse_views, name=path.name)


class Model(Protocol):
    """Two end points and everything between them.

    way: how it is shown videos and texts. facts: what it is, for results.
    """

    way: Way
    facts: dict[str, Any]

    def set_clip_weight(self, clip_weight: float) -> None:
        """Be the model at this λ, from 0 to 1, until the next call."""

    @property
    def logit_scale(self) -> float:
        """At the present λ, as multiplied: 100 for CLIP."""

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Views as vectors: uint8 (n, V, T, S, S, 3) -> float32 (n, V, D) of `view_features`."""

    def classifier(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Labels in the model's templates: float32 (C, D), see `Way.template_mean`."""

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as they are, cut where the model cannot read on: unit rows, float32 (n, D)."""
