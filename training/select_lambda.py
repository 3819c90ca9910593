"""Measure λ from 0 to 1; `training.selection_rule` chooses one on what was measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from service.videoclip.manifest import LambdaPoint, Preprocessing
from service.videoclip.pooling import Pooling
from training.evaluate.accuracy import Accuracy
from training.evaluate.measure import Scored, mean_headline
from training.evaluate.retrieval import Retrieval, retrieval
from training.evaluate.views import ViewRule, video_vectors
from training.evaluate.zero_shot import embed_views, zero_shot
from training.interpolate import interpolate
from training.models.network import VideoCLIP

DEFAULT_STEPS = 10
_VIEWS_NDIM = 6
Classifier = Callable[[VideoCLIP, Sequence[str]], NDArray[np.float32]]
Sweep = dict[str, dict[float, Accuracy | Retrieval]]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Labelled clips in memory.

    frames: uint8 (n, T, S, S, 3), or (n, V, T, S, S, 3) with several views of each video. labels:
    integer (n,), positions in `classes`. classes: the labels to choose from, in words. Sets that
    share one `frames` array are embedded once for all of them.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.integer]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Clips in memory with the sentences that describe them.

    frames: as of `EvaluationSet`. texts: sentences. video_of: integer, for each text the row of
    `frames` that it describes.
    """

    frames: NDArray[np.uint8]
    texts: tuple[str, ...]
    video_of: NDArray[np.integer]


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
    sets: Mapping[str, EvaluationSet | RetrievalSet],
    classifier: Classifier,
    preprocessing: Preprocessing,
    weights: Sequence[float],
    pooling: Pooling = "normalize_then_mean",
    sentences: Classifier | None = None,
    rule: ViewRule = "sum_of_logits",
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> Sweep:
    """Score every set at every λ. The network runs once over each array of frames for each λ.

    classifier: gives float32 (C, D) unit rows for labels in words, from the network as it is.
    sentences: the same for texts without templates; needed by retrieval sets. Returns set ->
    clip_weight -> scores. The network is left at the last λ.
    """
    if not sets:
        raise ValueError("no sets to evaluate")
    scores: Sweep = {name: {} for name in sets}
    for clip_weight in weights:
        network.load_state_dict(interpolate(clip, tuned, clip_weight=clip_weight), strict=True)
        embedded: dict[int, NDArray[np.float32]] = {}
        for name, data in sets.items():
            if id(data.frames) not in embedded:
                embedded[id(data.frames)] = embed_views(
                    network,
                    data.frames if data.frames.ndim == _VIEWS_NDIM else data.frames[:, None],
                    preprocessing=preprocessing,
                    pooling=pooling,
                    batch_size=batch_size,
                    on_batch=on_batch,
                )
            features = embedded[id(data.frames)]
            if isinstance(data, RetrievalSet):
                if sentences is None:
                    raise ValueError(f"{name}: a retrieval set, but nothing encodes sentences")
                scores[name][clip_weight] = retrieval(
                    sentences(network, data.texts),
                    video_vectors(features, pooling=pooling),
                    data.video_of,
                )
            else:
                scores[name][clip_weight] = zero_shot(
                    features,
                    classifier(network, data.classes),
                    data.labels,
                    pooling=pooling,
                    logit_scale=float(network.logit_scale.detach().exp()),
                    rule=rule,
                )
    return scores


def curve(sweeps: Sequence[Mapping[str, Mapping[float, Scored]]]) -> tuple[LambdaPoint, ...]:
    """Headline figures over several seeds, ascending in λ: mean and sample standard deviation.

    The figure is top-1, or text-to-video R@1 of a retrieval set; of base and novel classes it is
    the harmonic mean of their means over seeds, while the deviation is that of the seeds' own
    harmonic means. The deviation of one seed is 0. Raises ValueError when the sweeps are of
    different sets or different λ.
    """
    if not sweeps:
        raise ValueError("no sweeps")
    layout = {name: sorted(points) for name, points in sweeps[0].items()}
    if any({n: sorted(p) for n, p in other.items()} != layout for other in sweeps[1:]):
        raise ValueError("the sweeps are of different sets or different λ")
    points = []
    for clip_weight in next(iter(layout.values())):
        found = {n: [s[n][clip_weight] for s in sweeps] for n in layout}
        points.append(
            LambdaPoint(
                clip_weight=clip_weight,
                scores={n: mean_headline(scores) for n, scores in found.items()},
                spread={n: _spread(scores) for n, scores in found.items()},
            )
        )
    return tuple(points)


def _spread(scores: Sequence[Scored]) -> float:
    """The sample standard deviation of the scores' own figures; 0 of one."""
    values = [float(score.headline) for score in scores]
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
