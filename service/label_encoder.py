"""Texts to classifier vectors: by the encoder, or from the cache."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from service.cached_text import CachedText
from service.encode.process import EncoderProcess
from service.text_cache import TextCache
from service.videoclip.pooling import text_classifier
from service.videoclip.prompts import apply
from service.videoclip.tokenizing import Tokenizer

_TEXTS_PER_PIECE: Final = 256  # sentences (labels × templates) encoded before they are cached
_TEXTS_IN_SETS: Final = 20_000  # of whole sets that are kept as one matrix: 40 MB at D = 512

EncodeTexts = Callable[[npt.NDArray[np.int64]], Awaitable[npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class TextVectors:
    """Classifier vectors of texts.

    Attributes:
        vectors: float32 (n, D), unit rows.
        truncated: bool (n,), whether the tokenizer cut a sentence of that text.
        cache_hits: how many different texts needed no encoding for this call.
    """

    vectors: npt.NDArray[np.float32]
    truncated: npt.NDArray[np.bool_]
    cache_hits: int


class LabelEncoder:
    """Texts to classifier vectors, by the encoder and its tokenizer or from the cache."""

    def __init__(self, encoder: EncoderProcess, *, cache: TextCache, tokenizer: Tokenizer) -> None:
        self._encoder = encoder
        self._cache = cache
        self._tokenizer = tokenizer
        self._sets: OrderedDict[tuple[str, tuple[str, ...]], TextVectors] = OrderedDict()

    async def encode(
        self,
        texts: Sequence[str],
        *,
        templates: tuple[str, ...],
        clip_weight: float,
        deadline: float | None = None,
    ) -> TextVectors:
        """Return the classifier vectors of normalised `texts` at `clip_weight`.

        The vector of a text is the mean over the templates of unit sentence vectors, made unit
        again. `deadline` only orders the queue, and of all who wait for the same texts the last
        one counts; texts that nobody waits for any more are not encoded, and hold no λ. Raises
        EncoderError when the encoder failed.
        """
        prefix = self._prefix(templates, clip_weight)
        whole = (prefix, tuple(texts))
        if (kept := self._sets.get(whole)) is not None:
            self._sets.move_to_end(whole)
            self._cache.local_hits += kept.cache_hits
            return kept
        names: Mapping[str, str] = {prefix + text: text for text in texts}

        async def compute(keys: Sequence[str], until: float | None) -> Sequence[CachedText]:
            async def encode(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
                encoded = await self._encoder.encode_texts(
                    ids, clip_weight=clip_weight, deadline=until
                )
                return encoded.vectors

            return await self._compute([names[key] for key in keys], templates, encode)

        values, hits = await self._cache.get(
            [prefix + text for text in texts],
            dimension=self._encoder.manifest.embedding_size,
            compute=compute,
            keys_per_compute=max(1, _TEXTS_PER_PIECE // len(templates)),
            deadline=deadline,
        )
        found = _stacked(values, cache_hits=hits)
        self._sets[whole] = replace(found, cache_hits=len(names))
        while sum(len(kept.vectors) for kept in self._sets.values()) > _TEXTS_IN_SETS:
            self._sets.popitem(last=False)
        return found

    async def encode_by(
        self, encode: EncodeTexts, texts: Sequence[str], *, templates: tuple[str, ...]
    ) -> TextVectors:
        """The same by `encode`, another network than the served ones; the cache has no part in it.

        `encode` gives embeddings (n, D) of tokenised sentences int64 (n, L); n >= 1.
        """
        step = max(1, _TEXTS_PER_PIECE // len(templates))
        found: list[CachedText] = []
        for n in range(0, len(texts), step):
            found += await self._compute(list(texts[n : n + step]), templates, encode)
        return _stacked(found, cache_hits=0)

    def _prefix(self, templates: tuple[str, ...], clip_weight: float) -> str:
        manifest = self._encoder.manifest
        weight = f"{clip_weight:g}" if manifest.text_tower_tuned else ""
        digest = hashlib.blake2b(json.dumps(templates).encode(), digest_size=12).hexdigest()
        precision = self._encoder.space.precision
        number_format = "" if precision == "float32" else f"{precision}/"
        return f"{manifest.revision}/{number_format}{weight}/{digest}/"

    async def _compute(
        self, texts: list[str], templates: tuple[str, ...], encode: EncodeTexts
    ) -> list[CachedText]:
        sentences = [apply(template, text) for text in texts for template in templates]
        # Thousands of sentences take long enough to hold up the event loop.
        ids, truncated = await asyncio.to_thread(self._tokenizer.encode, sentences)
        encoded = await encode(ids)
        vectors = text_classifier(encoded.reshape(len(texts), len(templates), -1))
        cut = truncated.reshape(len(texts), len(templates))
        return [
            CachedText(vector, truncated=bool(flags.any()))
            for vector, flags in zip(vectors, cut, strict=True)
        ]


def _stacked(values: Sequence[CachedText], *, cache_hits: int) -> TextVectors:
    vectors = np.stack([value.vector for value in values])
    vectors.setflags(write=False)  # several requests may get them
    return TextVectors(vectors, np.array([value.truncated for value in values]), cache_hits)
