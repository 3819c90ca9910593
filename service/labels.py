"""Labels: what a client may ask for."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.videoclip.prompts import TEMPLATES

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc


class LabelError(ValueError):
    """Labels or templates that cannot be used.

    Attributes:
        code: one of `no_labels`, `too_many_labels`, `duplicate_label`, `empty_label`,
            `label_too_long`, `invalid_label`, `invalid_template`, `unknown_template_set`,
            `too_many_sentences`.
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
class LabelLimits:
    """What one request may ask; sentences are its texts times its templates."""

    max_labels: int = 1000
    max_characters: int = 400
    max_templates: int = 100
    max_sentences: int = 50_000


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


def require_sentences(
    texts: int, templates: int, *, param: str = "labels", limits: LabelLimits
) -> None:
    """Refuse a request whose texts, each in every template, are more work than is allowed.

    Raises:
        LabelError: too many sentences.
    """
    sentences = texts * templates
    if sentences > limits.max_sentences:
        raise LabelError(
            "too_many_sentences",
            f"{texts} texts in {templates} templates are {sentences} sentences, at most"
            f" {limits.max_sentences} are allowed.",
            param=param,
            limit=limits.max_sentences,
            actual=sentences,
        )
