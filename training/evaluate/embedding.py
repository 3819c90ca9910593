"""Decode and preprocess every video once, and show it to every model at every λ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.errors import VideoError
from service.videoclip.preprocessing import resize_crop
from training.errors import Refusal
from training.evaluate.crops import decode_three_crops
from training.evaluate.model import Model, Way

DEFAULT_MEMORY_BYTES = 2 * 2**30


class EmbeddingError(Refusal):
    """No video can be decoded, or models that cannot be measured side by side."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Videos as vectors.

    features: (name of the model, λ) -> float32 (n, V, D) of `view_features`; crops count as views.
    videos: the n that could be decoded. failed: the others, with the reason.
    """

    features: Mapping[tuple[str, float], NDArray[np.float32]]
    videos: tuple[Path, ...]
    failed: tuple[tuple[Path, str], ...]


def embed_once(
    models: Mapping[str, Model],
    videos: Sequence[Path],
    *,
    clip_weights: Sequence[float],
    threads: int = 2,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_videos: Callable[[int], None] | None = None,
) -> Embedded:
    """Embed videos by every model at every λ. A model is left at the last λ.

    memory_bytes: for decoded frames. So many videos as fit into half of it are shown to all models
    at all λ while the next ones are decoded. on_videos: called with the number of videos done
    since the last call. Raises EmbeddingError when the models want to see videos in different ways
    or when no video can be decoded.
    """
    way = _shared_way(models)
    size = way.preprocessing.image_size
    video_bytes = way.views * way.sampling.frames * size * size * 3
    at_once = max(1, memory_bytes // (2 * video_bytes))
    pieces: dict[tuple[str, float], list[NDArray[np.float32]]] = {
        (name, weight): [] for name in models for weight in clip_weights
    }
    kept: list[Path] = []
    failed: list[tuple[Path, str]] = []
    for paths, results in _decoded(videos, way, at_once=at_once, threads=threads):
        clips = []
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, str):
                failed.append((path, result))
            else:
                kept.append(path)
                clips.append(result)
        if clips:
            frames = np.stack(clips)
            for name, model in models.items():
                for weight in clip_weights:
                    model.set_clip_weight(weight)
                    pieces[name, weight].append(model.features(frames))
        if on_videos is not None:
            on_videos(len(paths))
    if not kept:
        path, reason = failed[0]
        raise EmbeddingError(f"none of {len(videos)} videos can be decoded; {path}: {reason}")
    return Embedded(
        features={which: np.concatenate(parts) for which, parts in pieces.items()},
        videos=tuple(kept),
        failed=tuple(failed),
    )


def _shared_way(models: Mapping[str, Model]) -> Way:
    first, *others = models.items()
    for name, model in others:
        for what in ("sampling", "sparse_views", "preprocessing", "pooling", "crops"):
            if getattr(model.way, what) != getattr(first[1].way, what):
                raise EmbeddingError(f"{first[0]} and {name} differ in {what}: measure them apart")
    return first[1].way


def _decoded(
    videos: Sequence[Path], way: Way, *, at_once: int, threads: int
) -> Iterator[tuple[Sequence[Path], list[NDArray[np.uint8] | str]]]:
    """Groups of videos with their frames, uint8 (V, T, S, S, 3), or why there are none."""

    square = partial(resize_crop, p=way.preprocessing)

    def decode(path: Path) -> NDArray[np.uint8] | str:
        try:
            plan = way.clip_plan(path)
            if way.crops == 3:
                return decode_three_crops(path, plan=plan, preprocessing=way.preprocessing)
            return decode_planned(path, plan=plan, shape=square, limits=Limits()).pixels
        except (VideoError, OSError) as error:
            return str(error)

    groups = [videos[first : first + at_once] for first in range(0, len(videos), at_once)]
    # The decoder leaves the interpreter lock, so threads help.
    with ThreadPoolExecutor(threads) as pool:

        def begin(group: Sequence[Path]) -> list[Future[NDArray[np.uint8] | str]]:
            return [pool.submit(decode, path) for path in group]

        waiting = [begin(group) for group in groups[:1]]
        for i, group in enumerate(groups):
            present = waiting.pop()
            results = [future.result() for future in present]
            del present
            waiting = [begin(group) for group in groups[i + 1 : i + 2]]
            yield group, results
