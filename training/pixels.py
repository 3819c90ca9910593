"""From decoded frames to the network's input, on its device."""

import torch
from torch import Tensor

from service.videoclip.manifest import Preprocessing


class Pixels:
    """Normalises frames as `service.videoclip.preprocessing.normalize` does."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device | str = "cpu") -> None:
        shape = (1, 1, 3, 1, 1)
        std = torch.tensor(preprocessing.std, device=device).view(shape)
        self._scale = 1.0 / (255.0 * std)
        self._shift = -torch.tensor(preprocessing.mean, device=device).view(shape) / std

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, S, S, 3), RGB, on any device -> float32 (B, T, 3, S, S)."""
        moved = frames.to(self._scale.device).permute(0, 1, 4, 2, 3)
        return moved.float().mul_(self._scale).add_(self._shift)
