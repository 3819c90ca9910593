"""Labels and templates: what is accepted, what it becomes, and what is said about the rest."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.labels import (
    LabelError,
    LabelLimits,
    LabelQuery,
    choose_templates,
    normalise,
    normalise_queries,
    require_sentences,
)
from service.videoclip.prompts import TEMPLATES

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


def test_labels_times_templates_are_bounded() -> None:
    """Each may be within its own limit and both together too much; 10,000 in five are not."""
    require_sentences(10_000, 5, limits=LabelLimits())
    with pytest.raises(LabelError) as caught:
        require_sentences(1000, 51, param="input", limits=LabelLimits())
    error = caught.value
    assert (error.code, error.param) == ("too_many_sentences", "input")
    assert (error.limit, error.actual) == (50_000, 51_000)
