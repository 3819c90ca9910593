"""Evaluation with a frozen classifier: a model is asked for the classes that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.class_lists import match
from training.evaluate.model import Model, Way
from training.frozen_classifiers import (
    CLASSIFIER_FILE,
    ClassifierError,
    FrozenClassifier,
    load_classifier,
)


class ClosedSetModel:
    """`training.evaluate.model.Model` that answers with frozen rows in the place of texts.

    Between the two ends of λ the videos move, the rows stay.
    """

    way: Way

    def __init__(self, model: Model, frozen: FrozenClassifier) -> None:
        self._model = model
        self._frozen = frozen
        self.way = model.way
        self.facts: dict[str, Any] = {**model.facts, "classifier": frozen.kind}

    def set_clip_weight(self, clip_weight: float) -> None:
        """Be the model at this λ."""
        self._model.set_clip_weight(clip_weight)

    @property
    def logit_scale(self) -> float:
        """At the present λ, as multiplied."""
        return self._model.logit_scale

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Views as vectors: uint8 (n, V, T, S, S, 3) -> float32 (n, V, D)."""
        return self._model.features(frames)

    def classifier(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """The frozen rows of these labels, matched by name: unit rows, float32 (C, D).

        Raises ClassListError for a label that is none of the classifier's classes.
        """
        own = self._frozen.classes
        named = match(labels, own, where=f"the {self._frozen.kind} classifier")
        rows = [own.index(named[label]) for label in labels]
        chosen: NDArray[np.float32] = self._frozen.rows.numpy()[rows]
        return chosen

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Refused: nothing relates texts to these rows. Raises ClassifierError."""
        raise ClassifierError(
            f"a {self._frozen.kind!r} classifier knows {len(self._frozen.classes)} classes and no "
            f"sentences, such as {texts[0]!r}"
        )


def with_own_classifier(model: Model, run: Path) -> Model:
    """The model of a run, asked with the run's own rows where it cannot be asked with texts.

    run: the folder of the run. A model that was trained towards CLIP's texts, and one of another
    recipe, is returned as it is. Raises ClassifierError for a file that cannot be read.
    """
    path = run / CLASSIFIER_FILE
    if not path.exists():
        return model
    frozen = load_classifier(path)
    return model if frozen.kind == "clip-text" else ClosedSetModel(model, frozen)
