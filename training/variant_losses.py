"""What graphs in fewer bits cost: top-1 on evaluation sets, and which of them may be published."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.videoclip.manifest import VARIANT_FILES, ArtefactError, Manifest, Variant, VariantName
from training.evaluate.artefact import PublishedModel
from training.evaluate.zero_shot import zero_shot

BOUND = 1.0
"""In points of top-1: what a variant may lose on each evaluation set, if nothing else is said."""


class LabelledClips(Protocol):
    """An evaluation set in memory; `training.select_lambda.EvaluationSet` is one.

    frames: uint8 (n, T, S, S, 3) or (n, V, T, S, S, 3). labels: integer (n,), positions in
    `classes`, which are in words.
    """

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The clips."""

    @property
    def labels(self) -> NDArray[np.integer]:
        """What they show."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What they might show."""


def measure_variants(
    folder: Path,
    manifest: Manifest,
    sets: Mapping[str, LabelledClips],
    *,
    names: Sequence[VariantName] = tuple(VARIANT_FILES),
    bound: float = BOUND,
    clip_weights: Sequence[float] | None = None,
    threads: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[Variant, ...]:
    """Compare each variant with the full graphs, and return those that lose at most `bound`.

    folder: an artefact with its `manifest.json` and the graphs of `training.variants`. sets: the
    evaluation sets by name. names: of the variants. bound: points of top-1. clip_weights: the λ to
    compare at; None takes both ends and the manifest's default. report: gets one line for each
    variant: what it loses, and if it is left out, why.

    Every loss is measured, set by set, and the largest over λ is what counts. Without any set there
    is nothing to measure, and no variant. Raises ValueError for a bound below 0.
    """
    if not bound >= 0:
        raise ValueError(f"bound: {bound} is below 0")
    if not sets:
        report("variants: none is published, there is no evaluation set to measure them on")
        return ()
    if clip_weights is None:
        clip_weights = (0.0, manifest.default_clip_weight, 1.0)
    weights = tuple(sorted(set(clip_weights)))
    full = _top1(folder, sets, weights, variant=None, threads=threads)
    kept = []
    for name in names:
        try:
            found = _top1(folder, sets, weights, variant=name, threads=threads)
        except ArtefactError:
            raise
        except ValueError as error:  # numbers that do not fit into the format
            report(f"{name}: not published: {error}")
            continue
        losses = {
            key: max(full[key, weight] - found[key, weight] for weight in weights) for key in sets
        }
        worst = max(losses, key=lambda key: losses[key])
        line = f"{name}: loses at most {losses[worst]:.2f} points of top-1, on {worst}"
        if losses[worst] > bound:
            report(f"{line}: above the bound of {bound:g}, not published")
            continue
        report(line)
        kept.append(
            Variant(
                name=name,
                files=VARIANT_FILES[name],
                clip_weights=weights,
                top1_loss=losses,
                bound=bound,
            )
        )
    return tuple(kept)


def _top1(
    folder: Path,
    sets: Mapping[str, LabelledClips],
    clip_weights: Sequence[float],
    *,
    variant: VariantName | None,
    threads: int,
) -> dict[tuple[str, float], float]:
    """Top-1 in % of every set at every λ."""
    model = PublishedModel(folder, variant=variant, threads=threads)
    found = {}
    for clip_weight in clip_weights:
        model.set_clip_weight(clip_weight)
        # Sets may share their clips and differ in the labels.
        features: dict[int, NDArray[np.float32]] = {}
        for key, labelled in sets.items():
            frames = labelled.frames
            if id(frames) not in features:
                views = frames if frames.ndim == 6 else frames[:, None]
                features[id(frames)] = model.features(views)
            found[key, clip_weight] = zero_shot(
                features[id(frames)],
                model.classifier(labelled.classes),
                labelled.labels,
                pooling=model.way.pooling,
                logit_scale=model.logit_scale,
            ).top1
    return found
