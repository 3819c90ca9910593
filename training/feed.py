"""From decoded batches to what a recipe sees: numbers on the device."""

import torch

from service.videoclip.manifest import Preprocessing
from training.data.batches import RawBatch
from training.pixels import Pixels
from training.recipe import Batch, Encode


class Feed:
    """Normalises pixels and encodes captions."""

    def __init__(
        self, preprocessing: Preprocessing, *, encode: Encode, device: torch.device
    ) -> None:
        self._pixels = Pixels(preprocessing, device)
        self._encode = encode
        self._device = device

    def __call__(self, raw: RawBatch) -> Batch:
        """The same clips; a missing caption becomes an empty text that is marked as none."""
        labels = captions = captioned = None
        if raw.labels is not None:
            labels = raw.labels.to(self._device)
        if raw.captions is not None:
            captions = self._encode([text or "" for text in raw.captions]).to(self._device)
            captioned = torch.tensor(
                [text is not None for text in raw.captions], device=self._device
            )
        return Batch(
            frames=self._pixels(raw.frames),
            labels=labels,
            captions=captions,
            captioned=captioned,
            unlabelled=None if raw.unlabelled is None else self(raw.unlabelled),
        )
