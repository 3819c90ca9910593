"""Class rows that know which words two classes share, and nothing else."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def word_rows(classes: Sequence[str], *, size: int, seed: int) -> Tensor:
    """The sum of one random direction for each word: a sentence encoder that never read anything.

    It stands where Text4Vis has DistilBERT: "star moving left" is near "star moving right" and far
    from "wheel growing", but no word means anything. Returns float32 (C, size), unit rows; a word's
    direction depends on seed and word alone.
    """
    rows = [
        np.sum([_direction(word, size=size, seed=seed) for word in name.split()], axis=0)
        for name in classes
    ]
    return F.normalize(torch.from_numpy(np.stack(rows)).float(), dim=-1)


def _direction(word: str, *, size: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    digest = hashlib.sha256(word.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    values = rng.standard_normal(size)
    unit: np.ndarray[tuple[int], np.dtype[np.float64]] = values / np.linalg.norm(values)
    return unit
