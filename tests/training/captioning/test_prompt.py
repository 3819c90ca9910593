"""What the language model is asked, and what is kept of its answer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.captioning.tiny_models import LLAMA2_TEMPLATE, save_llama
from training.captioning.pretrained import transformers_library
from training.captioning.prompt import (
    OPENING,
    SYSTEM,
    caption_of,
    chat_prompt,
    llama2_prompt,
    user_message,
)

FRAMES = ("a red star", "the star moves left", "a star on grey ground")


def tokenizer(folder: Path, template: str | None) -> Any:
    """The tiny Llama's."""
    return transformers_library().AutoTokenizer.from_pretrained(
        save_llama(folder, template=template)
    )


def test_the_paper_s_facts_are_in_the_prompt() -> None:
    """One sentence, one video, frames in order, a short summary, and how the answer begins."""
    prompt = llama2_prompt(FRAMES, start="<s>")
    assert "one sentence" in SYSTEM
    assert f"<<SYS>>\n{SYSTEM}\n<</SYS>>" in prompt
    question = user_message(FRAMES)
    for words in ("one video", "in the order", "Summarise", "whole video"):
        assert words in question
    places = [question.index(caption) for caption in FRAMES]
    assert places == sorted(places)
    assert prompt.startswith("<s>[INST] ")
    assert prompt.endswith(f"{question} [/INST] The video shows")


def test_llama_2_s_own_template_gives_the_same_prompt(tmp_path: Path) -> None:
    """A tokenizer that carries the format, and one that carries none, ask alike."""
    texts = {
        chat_prompt(FRAMES, tokenizer=tokenizer(tmp_path / str(i), template))
        for i, template in enumerate((LLAMA2_TEMPLATE, None))
    }
    assert texts == {llama2_prompt(FRAMES, start="<s>")}


def test_another_model_is_asked_in_its_own_format(tmp_path: Path) -> None:
    """Roles and marks are the template's; the opening still ends the prompt."""
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    text = chat_prompt(FRAMES, tokenizer=tokenizer(tmp_path, template))
    question = user_message(FRAMES)
    assert text == f"<system>{SYSTEM}<end><user>{question}<end><assistant>{OPENING}"


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (" a star.", "The video shows a star."),
        (" a star.\n\nI hope this helps!", "The video shows a star."),
        ("\n a  star\tthat turns", "The video shows a star that turns"),
        (" 2.5 stars! And more.", "The video shows 2.5 stars!"),
        ("", ""),
        (" \n.", ""),
    ],
)
def test_the_first_sentence_is_kept(answer: str, caption: str) -> None:
    """On one line, after the opening; an answer without a word is none."""
    assert caption_of(answer) == caption


@given(st.text())
def test_a_caption_is_one_line_that_begins_alike(answer: str) -> None:
    """Whatever a model writes."""
    caption = caption_of(answer)
    assert caption == "" or caption.startswith(f"{OPENING} ")
    assert caption == " ".join(caption.split())
