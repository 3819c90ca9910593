"""BLIP-2 (Li et al., ICML 2023): what is in a picture."""

import numpy as np
import torch
from numpy.typing import NDArray

from training.captioning.pretrained import (
    CaptionModelError,
    best_device,
    number_format,
    pretrained,
    transformers_library,
)

_WHAT = "blip2"


class FrameCaptioner:
    """Pictures to sentences, without a prompt, so that none of it is in the answer.

    name: folder or hub id of a `Blip2ForConditionalGeneration`, with a decoder of its own (OPT) or
    an encoder and a decoder (Flan-T5). beams: of the search; 1 is greedy. max_tokens: of a caption.
    Raises CaptionModelError.
    """

    def __init__(
        self,
        name: str,
        *,
        beams: int = 1,
        max_tokens: int = 30,
        device: torch.device | None = None,
    ) -> None:
        library = transformers_library()
        self._device = device or best_device()
        self._options = {"num_beams": beams, "max_new_tokens": max_tokens, "do_sample": False}
        model = pretrained(
            library.Blip2ForConditionalGeneration,
            name,
            what=_WHAT,
            dtype=number_format(self._device),
            use_safetensors=True,
        )
        if model.config.image_token_index is None:
            raise CaptionModelError(
                f"{_WHAT} = {name!r}: its config has no image_token_index, so it was saved by a "
                "version of transformers that is too old"
            )
        self._model = model.to(self._device).eval()
        self._processor = pretrained(library.Blip2Processor, name, what=_WHAT)

    @property
    def image_size(self) -> int:
        """Side of the square pictures that the model sees, in pixels."""
        return int(self._processor.image_processor.size["height"])

    def caption(self, pictures: NDArray[np.uint8]) -> list[str]:
        """pictures: uint8 (n, S, S, 3), RGB, S = `image_size`. Returns n lines of text."""
        inputs = self._processor(
            images=[np.ascontiguousarray(picture) for picture in pictures], return_tensors="pt"
        )
        pixels = inputs["pixel_values"].to(self._device, self._model.dtype)
        with torch.no_grad():
            ids = self._model.generate(pixel_values=pixels, **self._options)
        texts = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]
