"""A language model that makes one sentence of the captions of a video's frames."""

from collections.abc import Sequence

import torch

from training.captioning.pretrained import (
    best_device,
    number_format,
    pretrained,
    transformers_library,
)
from training.captioning.prompt import caption_of, chat_prompt

_WHAT = "language_model"


class Summariser:
    """Frame captions to a caption of the video, with the most probable words.

    name: folder or hub id of a causal language model that follows chats. max_tokens: of an answer.
    Raises CaptionModelError.
    """

    def __init__(
        self, name: str, *, max_tokens: int = 64, device: torch.device | None = None
    ) -> None:
        library = transformers_library()
        self._device = device or best_device()
        self._max_tokens = max_tokens
        self._model = (
            pretrained(
                library.AutoModelForCausalLM,
                name,
                what=_WHAT,
                dtype=number_format(self._device),
                use_safetensors=True,
            )
            .to(self._device)
            .eval()
        )
        # Answers follow their questions at once, so what fills a batch up goes to the left.
        tokenizer = pretrained(library.AutoTokenizer, name, what=_WHAT, padding_side="left")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # Llama 2 has none; it is masked anyway
        self._tokenizer = tokenizer

    def merge(self, frame_captions: Sequence[Sequence[str]]) -> list[str]:
        """The captions of each video's frames, in order -> one sentence for each video.

        A sentence is "" where the model had nothing to say.
        """
        prompts = [chat_prompt(each, tokenizer=self._tokenizer) for each in frame_captions]
        inputs = self._tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(self._device)
        with torch.no_grad():
            ids = self._model.generate(
                **inputs,
                max_new_tokens=self._max_tokens,
                do_sample=False,
                # The model's own sampling options, which greedy search has no use for.
                temperature=None,
                top_p=None,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = ids[:, inputs["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [caption_of(text) for text in texts]
