"""Prompt templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.videoclip.prompts import TEMPLATES, apply
from training.models.towers import open_clip


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_takes_a_label_once(name: str) -> None:
    """A set of templates is not empty, names no template twice, and each holds one {}."""
    templates = TEMPLATES[name]
    assert templates
    assert len(set(templates)) == len(templates)
    for template in templates:
        assert apply(template, "juggling") == template.replace("{}", "juggling")


def test_the_kinetics_templates_are_those_of_the_recipe() -> None:
    """28 sentences; the wrong article in "a example" is part of the published list."""
    kinetics = TEMPLATES["kinetics"]
    assert len(kinetics) == 28
    assert kinetics[0] == "a photo of {}."
    assert "a example of a person performing {}." in kinetics
    assert kinetics[-1] == "a demonstration of a person practicing {}."


def test_the_ucf101_templates_are_48() -> None:
    """Four media, two articles, six forms."""
    assert len(TEMPLATES["ucf101"]) == 48
    assert "a photo of a person {}." in TEMPLATES["ucf101"]
    assert "a demonstration of the person practicing {}." in TEMPLATES["ucf101"]


def test_the_imagenet_subset_is_open_clips() -> None:
    """The seven sentences are the same as open_clip's SIMPLE_IMAGENET_TEMPLATES."""
    theirs = tuple(make("{}") for make in open_clip().SIMPLE_IMAGENET_TEMPLATES)
    assert TEMPLATES["openai-imagenet-7"] == theirs


@given(st.text())
def test_a_label_is_never_a_format_string(label: str) -> None:
    """Whatever is in a label stays in it: braces, fields, attribute access."""
    assert apply("a video of a {}.", label) == "a video of a " + label + "."
    assert apply("{}", "{0.__class__} {}" + label) == "{0.__class__} {}" + label


@pytest.mark.parametrize("template", ["a video.", "", "{} and {}", "{0}", "{ }"])
def test_a_template_without_one_placeholder_is_refused(template: str) -> None:
    """No placeholder, or two, is an error that shows the template."""
    with pytest.raises(ValueError, match=r"expected '\{\}' exactly once"):
        apply(template, "dog")
