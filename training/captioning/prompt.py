"""What the language model is asked, and what is kept of its answer.

The paper tells what each part says, not its words: the system asks for one sentence; the user says
that the captions come from one video, in order, and asks for a short summary of all of it; and the
answer is begun for the model, so that every caption begins alike.
"""

import re
from collections.abc import Sequence
from typing import Any

SYSTEM = "Answer with one sentence."
BEFORE = "These captions describe frames of one video, in the order in which the frames appear:"
AFTER = "Summarise in a few words what happens in the whole video."
OPENING = "The video shows"


def user_message(frame_captions: Sequence[str]) -> str:
    """The question about one video. frame_captions: in the order of the frames, at least one."""
    numbered = (f"{i}. {caption}" for i, caption in enumerate(frame_captions, start=1))
    return "\n".join((BEFORE, *numbered, AFTER))


def llama2_prompt(frame_captions: Sequence[str], *, start: str) -> str:
    """The question in Llama 2's chat format, and the opening of the answer.

    start: the token that begins a text, ``<s>``.
    """
    user = user_message(frame_captions)
    return f"{start}[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n{user} [/INST] {OPENING}"


def chat_prompt(frame_captions: Sequence[str], *, tokenizer: Any) -> str:
    """The question in the format that the tokenizer carries; without one, in Llama 2's.

    tokenizer: of `transformers`. Returns text that has its special tokens already.
    """
    if not tokenizer.chat_template:
        return llama2_prompt(frame_captions, start=tokenizer.bos_token or "")
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": user_message(frame_captions)},
        {"role": "assistant", "content": OPENING},
    ]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    return text


def caption_of(answer: str) -> str:
    """The caption: the opening, and the answer up to the end of its first sentence, on one line.

    answer: what the model wrote after the opening. Returns "" when it wrote no word.
    """
    words = " ".join(answer.split())
    if not re.search(r"\w", words):
        return ""
    return re.split(r"(?<=[.!?])\s", f"{OPENING} {words}", maxsplit=1)[0]
