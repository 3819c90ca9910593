"""Vectors as an index of videos has them, made from real embeddings: how many are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

SEGMENTS_PER_VIDEO = 10
CHUNK = 50_000
_MIXED = 3
_NOISE = 0.5


def real_embeddings(folder: Path) -> Vectors:
    """Return the embeddings of pictures and of class names, (N, 512), unit length.

    Raises:
        FileNotFoundError: the folder has none.
    """
    parts = [np.load(path).astype(np.float32) for path in sorted(folder.glob("*.npy"))]
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as archive:
            parts += [archive[name].astype(np.float32) for name in archive.files]
    parts = [part.reshape(-1, part.shape[-1]) for part in parts if part.ndim >= 2]
    if not parts:
        raise FileNotFoundError(f"no embeddings in {folder}")
    return unit(np.concatenate(parts))


def unit(vectors: Vectors) -> Vectors:
    """Scale each to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


@dataclass(frozen=True)
class VectorSet:
    """Mixtures of real embeddings with noise; the same for the same seed.

    Each vector is a random convex mixture of three real ones plus Gaussian noise of length 0.5.
    Videos own `SEGMENTS_PER_VIDEO` each and have ``tenth`` and ``hundredth`` as metadata.
    """

    real: Vectors
    segments: int
    seed: int = 0

    @property
    def videos(self) -> int:
        """How many there are."""
        return self.segments // SEGMENTS_PER_VIDEO

    def chunks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield number of the first segment, and vectors (up to `CHUNK`, D)."""
        for start in range(0, self.segments, CHUNK):
            count = min(CHUNK, self.segments - start)
            yield start, self._mixtures(count, key=(self.seed, start))

    def queries(self, count: int) -> Vectors:
        """Return vectors of the same kind that are not in the set."""
        return self._mixtures(count, key=(self.seed, -1 % 2**32))

    def classes(self) -> dict[str, npt.NDArray[np.int64]]:
        """Name of a key of metadata -> its value for each video."""
        draw = np.random.default_rng((self.seed, 7))
        return {
            "tenth": draw.integers(0, 10, self.videos),
            "hundredth": draw.integers(0, 100, self.videos),
        }

    def _mixtures(self, count: int, *, key: Sequence[int]) -> Vectors:
        draw = np.random.default_rng(list(key))
        weights = draw.dirichlet(np.ones(_MIXED), size=count).astype(np.float32)
        chosen = draw.integers(0, len(self.real), size=(count, _MIXED))
        mixed = np.zeros((count, self.real.shape[1]), np.float32)
        for which in range(_MIXED):
            mixed += weights[:, which, None] * self.real[chosen[:, which]]
        noise = unit(draw.standard_normal(mixed.shape, np.float32))
        return unit(unit(mixed) + _NOISE * noise)


def least_cosines(
    vectors: VectorSet, queries: Vectors, masks: Sequence[npt.NDArray[np.bool_]], *, top_k: int
) -> npt.NDArray[np.float64]:
    """Brute force: the cosine of the ``top_k``-th nearest under each mask, (masks, queries).

    Args:
        vectors: that are compared.
        queries: (Q, D).
        masks: which segments count.
        top_k: how many.
    """
    best = np.full((len(masks), len(queries), top_k), -np.inf, np.float32)
    for start, chunk in vectors.chunks():
        cosines = queries @ chunk.T
        for number, mask in enumerate(masks):
            allowed = cosines[:, mask[start : start + len(chunk)]]
            both = np.concatenate([best[number], allowed], axis=1)
            best[number] = -np.partition(-both, top_k - 1, axis=1)[:, :top_k]
    return np.asarray(best.min(axis=2), np.float64)
