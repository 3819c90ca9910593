"""CLIP's image transform: resize the shorter side, cut the middle square, normalise.

The reference is open_clip's inference transform (`open_clip.transform.image_transform`):
torchvision Resize (Pillow, bicubic, antialiased) -> CenterCrop -> ToTensor -> Normalize. Here
only the box that survives the crop is resized, which saves time and, for very wide pictures,
memory. tests/service/videoclip/test_preprocessing.py bounds the difference on real frames.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.videoclip.manifest import Preprocessing

# Pillow's bicubic kernel reaches two (scaled) pixels to either side.
_BICUBIC_SUPPORT = 2.0


def crop_box(width: int, height: int, *, size: int) -> tuple[float, float, float, float]:
    """The part of a picture that becomes the square, as (left, top, right, bottom) in pixels.

    torchvision's arithmetic: the longer side becomes ``int(size * long / short)``, the crop
    begins at ``int(round((side - size) / 2))``.
    """
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    left = round((new_width - size) / 2.0)
    top = round((new_height - size) / 2.0)
    scale_x, scale_y = width / new_width, height / new_height
    return (
        left * scale_x,
        top * scale_y,
        min((left + size) * scale_x, float(width)),
        min((top + size) * scale_y, float(height)),
    )


def resize_crop(rgb: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.uint8]:
    """Resize the shorter side to `p.image_size` (bicubic, antialiased) and cut the middle.

    Args:
        rgb: uint8 (H, W, 3), upright.
        p: the manifest's preprocessing.

    Returns:
        uint8 (S, S, 3) with S = `p.image_size`.

    Raises:
        ValueError: `rgb` is not uint8 of shape (H, W, 3) or is empty.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    height, width, _ = rgb.shape
    size = p.image_size
    left, top, right, bottom = crop_box(width, height, size=size)
    # Give Pillow the box and what its kernel can reach around it, not the whole picture: it
    # copies what it is given. The result is the same.
    reach_x = _BICUBIC_SUPPORT * max((right - left) / size, 1.0) + 1.0
    reach_y = _BICUBIC_SUPPORT * max((bottom - top) / size, 1.0) + 1.0
    x0, x1 = max(0, floor(left - reach_x)), min(width, ceil(right + reach_x))
    y0, y1 = max(0, floor(top - reach_y)), min(height, ceil(bottom + reach_y))
    picture = Image.fromarray(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
    # Across, then down, in two calls: in one call Pillow chooses the order by the size of the box,
    # and then differs by several levels from what it does to the whole picture.
    across = picture.resize(
        (size, y1 - y0), Image.Resampling.BICUBIC, box=(left - x0, 0.0, right - x0, y1 - y0)
    )
    resized = across.resize(
        (size, size), Image.Resampling.BICUBIC, box=(0.0, top - y0, size, bottom - y0)
    )
    return np.asarray(resized)


def normalize(pixels: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.float32]:
    """``(x / 255 - mean) / std``, channels first, as torchvision's ToTensor and Normalize.

    Args:
        pixels: uint8 (..., S, S, 3).
        p: the manifest's preprocessing.

    Returns:
        float32 (..., 3, S, S), contiguous.

    Raises:
        ValueError: `pixels` is not uint8 of that shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim < 3 or pixels.shape[-1] != 3:
        raise ValueError(
            f"pixels: expected uint8 (..., S, S, 3), got {pixels.dtype} {pixels.shape}"
        )
    # A byte has 256 values: look them up instead of computing each one again.
    levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
    *leading, height, width, _ = pixels.shape
    result = np.empty((*leading, 3, height, width), dtype=np.float32)
    for channel in range(3):
        table = (levels - np.float32(p.mean[channel])) / np.float32(p.std[channel])
        result[..., channel, :, :] = table[pixels[..., channel]]
    return result
