"""Labels and templates: what is accepted, what it becomes, and what is said about the rest."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.labels import (
    LabelEncoder,
    LabelError,
    LabelLimits,
    LabelQuery,
    choose_templates,
    normalise,
    normalise_queries,
)
from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import Tokenizer
from tests.service.engine import running

LIMITS = LabelLimits(max_labels=5, max_characters=40, max_templates=3)


@given(st.text(max_size=40))
def test_normalising_gives_clean_text_once_and_for_all(text: str) -> None:
    """The result is NFC, has single spaces, no control characters, and is a fixed point."""
    try:
        plain = normalise(text, limits=LIMITS)
    except LabelError:
        assert not text.strip("\x00").strip() or not text.isprintable()
        return
    assert unicodedata.is_normalized("NFC", plain)
    assert plain == " ".join(plain.split())
    assert not any(unicodedata.category(character) == "Cc" for character in plain)
    assert len(plain) > 40 or normalise(plain, limits=LIMITS) == plain


def test_composed_and_decomposed_text_is_one_label() -> None:
    """`é` in one or two code points gives the same text, so the same cache entry."""
    assert normalise("caf\u00e9", limits=LIMITS) == normalise("cafe\u0301", limits=LIMITS)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ([], "no_labels"),
        ([LabelQuery(("a",)), LabelQuery((" a\t",), id="other")], "duplicate_label"),
        ([LabelQuery(("",))], "empty_label"),
        ([LabelQuery((" \u2003\x00",))], "empty_label"),
        ([LabelQuery(())], "empty_label"),
        ([LabelQuery(("x" * 41,))], "label_too_long"),
        ([LabelQuery(("\ud800",))], "invalid_label"),
        ([LabelQuery((str(n),)) for n in range(6)], "too_many_labels"),
        ([LabelQuery(("a",), negative=("b", "c", "d", "e", "f"))], "too_many_labels"),
        ([LabelQuery(("a",), negative=("",))], "empty_label"),
    ],
)
def test_labels_that_cannot_be_used_are_named(labels: list[LabelQuery], code: str) -> None:
    """Each mistake has its code and a sentence for the client."""
    with pytest.raises(LabelError) as caught:
        normalise_queries(labels, limits=LIMITS)
    assert caught.value.code == code
    assert caught.value.detail.endswith(".")


def test_limits_are_told_with_what_was_sent() -> None:
    """A limit error holds the limit and the value."""
    with pytest.raises(LabelError) as caught:
        normalise("x" * 41, limits=LIMITS)
    assert (caught.value.limit, caught.value.actual) == (40, 41)


def test_texts_ids_and_negatives_are_kept() -> None:
    """Only the texts change."""
    query = LabelQuery(("a  dog", "a puppy"), id="dog", negative=(" a cat",))
    expected = LabelQuery(("a dog", "a puppy"), id="dog", negative=("a cat",))
    assert normalise_queries([query], limits=LIMITS) == (expected,)


def test_templates_are_own_then_named_then_default() -> None:
    """A request's templates win over nothing; a named set over the default."""
    choose: dict[str, Any] = {"default_set": "none", "limits": LIMITS}
    assert choose_templates(templates=None, template_set=None, **choose) == ("{}",)
    named = choose_templates(templates=None, template_set="vifi-clip", **choose)
    assert named == TEMPLATES["vifi-clip"]
    own = choose_templates(templates=["a {} {0}", "{}"], template_set=None, **choose)
    assert own == ("a {} {0}", "{}")


@pytest.mark.parametrize(
    ("templates", "template_set", "code"),
    [
        (["no place"], None, "invalid_template"),
        (["{} and {}"], None, "invalid_template"),
        ([], None, "invalid_template"),
        (["{}"] * 4, None, "invalid_template"),
        (["{}" + "x" * 60], None, "label_too_long"),
        (["{}"], "kinetics", "invalid_template"),
        (None, "no such set", "unknown_template_set"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(
    templates: list[str] | None, template_set: str | None, code: str
) -> None:
    """Each mistake has its code."""
    with pytest.raises(LabelError) as caught:
        choose_templates(
            templates=templates, template_set=template_set, default_set="none", limits=LIMITS
        )
    assert caught.value.code == code


@pytest.mark.anyio
async def test_a_set_that_was_asked_before_is_one_matrix(tmp_path: Path) -> None:
    """The same matrix again, all of it hits, by λ and templates apart, and no more than may be."""
    async with running(tmp_path, text_tower_tuned=True) as engine:
        encoder = LabelEncoder(
            engine.encoder,
            cache=engine.cache,
            tokenizer=Tokenizer(next(tmp_path.rglob("tokenizer.json")), 32),
        )
        texts = [f"a thing {number}" for number in range(300)]
        first = await encoder.encode(texts, templates=("a {}",), clip_weight=0.5)
        again = await encoder.encode(texts, templates=("a {}",), clip_weight=0.5)
        assert (first.cache_hits, again.cache_hits) == (0, 300)
        assert again.vectors is first.vectors
        with pytest.raises(ValueError, match="read-only"):
            again.vectors[0] = 0
        for templates, clip_weight in ((("the {}",), 0.5), (("a {}",), 0.1)):
            other = await encoder.encode(texts, templates=templates, clip_weight=clip_weight)
            assert not np.allclose(other.vectors, first.vectors)
            assert other.cache_hits == 0
        part = await encoder.encode(texts[:5], templates=("a {}",), clip_weight=0.5)
        assert part.cache_hits == 5
        assert np.array_equal(part.vectors, first.vectors[:5])
