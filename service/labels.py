"""Labels: what a client may ask for, and how their texts become classifier vectors."""

import asyncio
import hashlib
import json
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.encode.process import EncoderProcess
from service.text_cache import CachedText, TextCache
from service.videoclip.pooling import text_classifier
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer

_TEXTS_PER_PIECE: Final = 256  # sentences (labels × templates) encoded before they are cached
_TEXTS_IN_SETS: Final = 20_000  # of whole sets that are kept as one matrix: 40 MB at D = 512

EncodeTexts = Callable[[npt.NDArray[np.int64]], Awaitable[npt.NDArray[np.float32]]]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc


class LabelError(ValueError):
    """Labels or templates that cannot be used.

    Attributes:
        code: one of `no_labels`, `too_many_labels`, `duplicate_label`, `empty_label`,
            `label_too_long`, `invalid_label`, `invalid_template`, `unknown_template_set`.
        detail: for the client.
        param: the field.
        limit: the limit that was passed, if any.
        actual: what was found.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        param: str = "labels",
        limit: float | None = None,
        actual: float | str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.param = param
        self.limit = limit
        self.actual = actual


class LabelQuery(NamedTuple):
    """One label of a request; a tuple, since there are thousands of them.

    Attributes:
        text: one or more texts that mean the label; the first is its name in answers.
        id: the client's own name for it.
        negative: texts that the label must beat; independent scores only.
    """

    text: tuple[str, ...]
    id: str | None = None
    negative: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class LabelLimits:
    """What one request may ask."""

    max_labels: int = 1000
    max_characters: int = 400
    max_templates: int = 100


def normalise(text: str, *, param: str = "labels", limits: LabelLimits) -> str:
    """Return `text` in Unicode NFC, with single spaces and none at the ends.

    Raises:
        LabelError: nothing is left, it is too long, or it holds a lone surrogate.
    """
    if len(text) > limits.max_characters:
        raise LabelError(
            "label_too_long",
            f"A label has {len(text)} characters, at most {limits.max_characters} are allowed.",
            param=param,
            limit=limits.max_characters,
            actual=len(text),
        )
    if not (text.isascii() and text.isprintable()):
        if _SURROGATE.search(text):
            raise LabelError("invalid_label", "A label is not valid Unicode text.", param=param)
        # NUL and other control characters separate words at most; they never reach a model or log.
        text = unicodedata.normalize("NFC", _CONTROL.sub(" ", text))
    plain = " ".join(text.split())
    if not plain:
        raise LabelError("empty_label", "A label is empty.", param=param)
    return plain


def normalise_queries(
    labels: Sequence[LabelQuery], *, limits: LabelLimits
) -> tuple[LabelQuery, ...]:
    """Return the labels with normalised texts.

    Raises:
        LabelError: none, too many, one that cannot be used, or two with the same texts.
    """
    if not labels:
        raise LabelError("no_labels", "Give at least one label.")
    texts = sum(len(label.text) + len(label.negative) for label in labels)
    if texts > limits.max_labels:
        raise LabelError(
            "too_many_labels",
            f"{texts} texts in all labels, at most {limits.max_labels} are allowed.",
            limit=limits.max_labels,
            actual=texts,
        )
    seen: set[frozenset[str] | str] = set()
    result = []
    for label in labels:
        if not label.text:
            raise LabelError("empty_label", "A label has no text.")
        query = LabelQuery(
            text=tuple(normalise(text, limits=limits) for text in label.text),
            id=label.id,
            negative=tuple(normalise(text, limits=limits) for text in label.negative),
        )
        same = query.text[0] if len(query.text) == 1 else frozenset(query.text)
        if same in seen:
            raise LabelError(
                "duplicate_label",
                f"The label {query.text[0]!r} is given twice.",
                actual=label.text[0],
            )
        seen.add(same)
        result.append(query)
    return tuple(result)


def choose_templates(
    *,
    templates: Sequence[str] | None,
    template_set: str | None,
    default_set: str,
    limits: LabelLimits,
) -> tuple[str, ...]:
    """Return the prompt templates of a request: its own, else the named set, else the default.

    Raises:
        LabelError: both given, an unknown set, none or too many, or one without its `{}`.
    """
    if templates is None:
        name = default_set if template_set is None else template_set
        if name not in TEMPLATES:
            raise LabelError(
                "unknown_template_set",
                f"Template sets are {', '.join(sorted(TEMPLATES))}.",
                param="template_set",
                actual=name[:100],
            )
        return TEMPLATES[name]
    if template_set is not None:
        raise LabelError(
            "invalid_template", "Give templates or template_set, not both.", param="templates"
        )
    if not 1 <= len(templates) <= limits.max_templates:
        raise LabelError(
            "invalid_template",
            f"{len(templates)} templates; from 1 to {limits.max_templates} are allowed.",
            param="templates",
            limit=limits.max_templates,
            actual=len(templates),
        )
    for template in templates:
        normalise(template, param="templates", limits=limits)
        if template.count("{}") != 1:
            raise LabelError(
                "invalid_template",
                "A template must hold {} exactly once.",
                param="templates",
                actual=template[:100],
            )
    return tuple(templates)


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
        again. `deadline` only orders the queue: others may wait for the same texts, too. Raises
        EncoderError when the encoder failed.
        """
        prefix = self._prefix(templates, clip_weight)
        whole = (prefix, tuple(texts))
        if (kept := self._sets.get(whole)) is not None:
            self._sets.move_to_end(whole)
            self._cache.local_hits += kept.cache_hits
            return kept
        names: Mapping[str, str] = {prefix + text: text for text in texts}

        async def encode(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            encoded = await self._encoder.encode_texts(
                ids, clip_weight=clip_weight, deadline=deadline
            )
            return encoded.vectors

        async def compute(keys: Sequence[str]) -> Sequence[CachedText]:
            return await self._compute([names[key] for key in keys], templates, encode)

        values, hits = await self._cache.get(
            [prefix + text for text in texts],
            dimension=self._encoder.manifest.embedding_size,
            compute=compute,
            keys_per_compute=max(1, _TEXTS_PER_PIECE // len(templates)),
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
