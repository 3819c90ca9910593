"""Random colours of a clip, by torchvision's functions. Clips are uint8 (T, S, S, 3), RGB."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.models.towers import let_torchvision_import

let_torchvision_import()

from torchvision.transforms import v2  # noqa: E402 - only now can it be imported everywhere
from torchvision.transforms.v2 import functional as F  # noqa: E402

Pixels = NDArray[np.uint8]


def jitter(
    clip: Pixels,
    rng: np.random.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Pixels:
    """torchvision's ColorJitter, drawn once for all frames: four changes in a random order.

    brightness, contrast, saturation: s stands for a factor of U[1-s, 1+s]. hue: h, for a turn of
    U[-h, h] of the colour wheel; 0 saves the time, which is most of it.
    """
    changes: list[tuple[Callable[[Any, float], Any], float]] = [
        (F.adjust_brightness, rng.uniform(1 - brightness, 1 + brightness)),
        (F.adjust_contrast, rng.uniform(1 - contrast, 1 + contrast)),
        (F.adjust_saturation, rng.uniform(1 - saturation, 1 + saturation)),
        (F.adjust_hue, rng.uniform(-hue, hue)),
    ]
    chosen = [changes[i] for i in rng.permutation(len(changes)) if i != 3 or hue > 0]

    def change(picture: Any) -> Any:
        for function, amount in chosen:
            picture = function(picture, float(amount))
        return picture

    return _each(clip, change)


def grey(clip: Pixels) -> Pixels:
    """Luma in all three channels."""
    return _each(clip, lambda picture: F.rgb_to_grayscale(picture, num_output_channels=3))


def rand_augment(
    clip: Pixels, rng: np.random.Generator, *, operations: int, magnitude: int
) -> Pixels:
    """RandAugment (Cubuk et al., 2020) as torchvision has it, the same for all frames."""
    video = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
        torch.manual_seed(int(rng.integers(2**63)))
        changed = v2.RandAugment(num_ops=operations, magnitude=magnitude)(video)
    result: Pixels = changed.permute(0, 2, 3, 1).contiguous().numpy()
    return result


def _each(clip: Pixels, change: Callable[[Any], Any]) -> Pixels:
    # Pillow's pictures: four changes take two thirds of the time that they take on tensors.
    return np.stack(
        [np.asarray(change(Image.fromarray(np.ascontiguousarray(frame)))) for frame in clip]
    )
