"""A trained run, measured at every λ: top-1, retrieval, and whether it knows which way."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.videoclip.pooling import Pooling, text_classifier
from service.videoclip.prompts import apply
from training.data.motion_world.vocabulary import OPPOSITES
from training.evaluate.accuracy import accuracy
from training.evaluate.retrieval import retrieval
from training.evaluate.views import class_scores, video_vectors
from training.evaluate.zero_shot import embed_views
from training.frozen_classifiers import FrozenClassifier
from training.interpolate import interpolate
from training.models.network import VideoCLIP
from training.precision import Precision, autocast
from training.recipe import Encode
from training.reproduction.world import World
from training.select_lambda import EvaluationSet, RetrievalSet

#: Of videos whose verb has a reverse: how often the label scores above its reverse, %.
DIRECTION = "direction"
_DIRECTION_OF = "unseen-nouns"
_BATCH = 64
Scores = dict[str, float]


def measure(
    network: VideoCLIP,
    *,
    clip: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    clip_weights: Sequence[float],
    sets: Sequence[str],
    world: World,
    pooling: Pooling,
    encode: Encode,
    templates: Sequence[str],
    precision: Precision,
    rows: FrozenClassifier | None = None,
) -> dict[str, Scores]:
    """Scores in % by λ, written as with ``:g``, and name; at the precision of the training.

    Top-1 under the name of the set or part; of retrieval "retrieval t2v" and "retrieval v2t",
    recall at 1; with unseen nouns also `DIRECTION`. rows: instead of the texts of labels. The
    network is left at the last λ.
    """
    found = {}
    for weight in clip_weights:
        network.load_state_dict(interpolate(clip, tuned, clip_weight=weight), strict=True)
        with autocast(torch.device("cpu"), precision):
            found[f"{weight:g}"] = _scores(
                network, sets, world, pooling=pooling, encode=encode, templates=templates, rows=rows
            )
    return found


def _scores(
    network: VideoCLIP,
    sets: Sequence[str],
    world: World,
    *,
    pooling: Pooling,
    encode: Encode,
    templates: Sequence[str],
    rows: FrozenClassifier | None,
) -> Scores:
    network.eval()
    embedded: dict[str, NDArray[np.float32]] = {}

    def features(name: str) -> NDArray[np.float32]:
        if name not in embedded:
            embedded[name] = embed_views(
                network,
                world.measured[name].frames[:, None],
                preprocessing=world.preprocessing,
                pooling=pooling,
                batch_size=_BATCH,
            )
        return embedded[name]

    def scores(of: NDArray[np.float32], classes: Sequence[str]) -> NDArray[np.float32]:
        if rows is None:
            classifier = _rows(network, classes, encode=encode, templates=templates)
        else:
            classifier = rows.rows.numpy()[[rows.classes.index(name) for name in classes]]
        return class_scores(of, classifier, pooling=pooling, logit_scale=1.0)

    result: Scores = {}
    for name in sets:
        if name in world.parts:
            part = world.parts[name]
            own = scores(features(part.of)[part.rows], part.classes)
            result[name] = accuracy(own, part.labels).top1
            continue
        data = world.measured[name]
        if isinstance(data, RetrievalSet):
            recalls = retrieval(
                _rows(network, data.texts, encode=encode, templates=("{}",)),
                video_vectors(features(name), pooling=pooling),
                data.video_of,
            )
            result[f"{name} t2v"] = recalls.text_to_video.r1
            result[f"{name} v2t"] = recalls.video_to_text.r1
            continue
        all_scores = scores(features(name), data.classes)
        result[name] = accuracy(all_scores, data.labels).top1
        if name == _DIRECTION_OF:
            result[DIRECTION] = direction(all_scores, data)
    return result


def _rows(
    network: VideoCLIP, labels: Sequence[str], *, encode: Encode, templates: Sequence[str]
) -> NDArray[np.float32]:
    """Unit rows of labels in words, all of them in one pass."""
    token_ids = encode([apply(template, label) for label in labels for template in templates])
    with torch.no_grad():
        texts = network.encode_text(token_ids).float().numpy()
    return text_classifier(texts.reshape(len(labels), len(templates), -1))


def direction(scores: NDArray[np.float32], data: EvaluationSet) -> float:
    """Of videos whose verb has a reverse: how often the label scores above its reverse, %.

    A network that gives a video and its reverse one vector has 50 % but for chance. Raises
    ValueError for a set without such verbs.
    """
    reverse = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
    position = {name: index for index, name in enumerate(data.classes)}
    right: list[Any] = []
    for row, label in enumerate(data.labels):
        noun, _, verb = data.classes[label].partition(" ")
        other = position.get(f"{noun} {reverse.get(verb, '')}")
        if other is not None:
            right.append(scores[row, label] > scores[row, other])
    if not right:
        raise ValueError("no verb here has a reverse")
    return 100.0 * float(np.mean(right))
