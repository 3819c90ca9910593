"""The image transform: resize the shorter side, cut the middle square, normalise.

The reference for ``bicubic`` is open_clip's inference transform
(`open_clip.transform.image_transform`): torchvision Resize (Pillow, bicubic, antialiased) ->
CenterCrop -> ToTensor -> Normalize; ``bilinear`` is the same with Pillow's other filter. Here only
the box that survives the crop is resized, which saves time and, for very wide pictures, memory.
tests/service/videoclip/test_preprocessing.py bounds the difference on real frames.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.videoclip.input_spec import Interpolation, Preprocessing

# Pillow's filters, and how many (scaled) pixels their kernels reach to either side.
_PILLOW = {"bicubic": (Image.Resampling.BICUBIC, 2.0), "bilinear": (Image.Resampling.BILINEAR, 1.0)}
# Without antialiasing: how many pixels a point sees in each direction, however much shrinks.
_TAPS = {"bilinear_without_antialias": 2, "bicubic_without_antialias": 4}

Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, *, size: int, resize_size: int | None = None) -> Box:
    """The part of a picture that becomes the square, as (left, top, right, bottom) in pixels.

    torchvision's arithmetic: with R = `resize_size` (None: `size`) the shorter side becomes R, the
    longer one ``int(R * long / short)``, and the crop begins at ``int(round((side - size) / 2))``.
    """
    shorter = size if resize_size is None else resize_size
    if width <= height:
        new_width, new_height = shorter, int(shorter * height / width)
    else:
        new_width, new_height = int(shorter * width / height), shorter
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
    """Resize the shorter side as `p` says and cut out the middle.

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
    box = crop_box(width, height, size=p.image_size, resize_size=p.resize_size)
    return resize_box(rgb, box, size=p.image_size, interpolation=p.interpolation)


def resize_box(
    rgb: NDArray[np.uint8], box: Box, *, size: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Make a square of a part of a picture.

    Args:
        rgb: uint8 (H, W, 3), upright.
        box: (left, top, right, bottom) in pixels, inside the picture; need not be square or whole.
        size: S.
        interpolation: as in the manifest's preprocessing.

    Returns:
        uint8 (S, S, 3).
    """
    if interpolation in _TAPS:
        return _by_points(rgb, box, size=size, taps=_TAPS[interpolation])
    resampling, support = _PILLOW[interpolation]
    return _by_pillow(rgb, box, size=size, resampling=resampling, support=support)


def _by_pillow(
    rgb: NDArray[np.uint8], box: Box, *, size: int, resampling: Image.Resampling, support: float
) -> NDArray[np.uint8]:
    height, width, _ = rgb.shape
    left, top, right, bottom = box
    # Give Pillow the box and what its kernel can reach around it, not the whole picture: it
    # copies what it is given. The result is the same.
    reach_x = support * max((right - left) / size, 1.0) + 1.0
    reach_y = support * max((bottom - top) / size, 1.0) + 1.0
    x0, x1 = max(0, floor(left - reach_x)), min(width, ceil(right + reach_x))
    y0, y1 = max(0, floor(top - reach_y)), min(height, ceil(bottom + reach_y))
    picture = Image.fromarray(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
    # Across, then down, in two calls: in one call Pillow chooses the order by the size of the box,
    # and then differs by several levels from what it does to the whole picture.
    across = picture.resize((size, y1 - y0), resampling, box=(left - x0, 0.0, right - x0, y1 - y0))
    resized = across.resize((size, size), resampling, box=(0.0, top - y0, size, bottom - y0))
    return np.asarray(resized)


def _by_points(rgb: NDArray[np.uint8], box: Box, *, size: int, taps: int) -> NDArray[np.uint8]:
    """What `torch.nn.functional.interpolate` gives (OpenCV, too, if bilinear), in whole levels.

    Pixel centres lie at halves (``align_corners=False``); border pixels go on beyond the border.
    """
    height, width, _ = rgb.shape
    x, share_x = _taps(box[0], box[2], size=size, length=width, taps=taps)
    y, share_y = _taps(box[1], box[3], size=size, length=height, taps=taps)
    # Rows first: of the picture, only those are read that a row of the result needs.
    first, last = int(x.min()), int(x.max()) + 1
    rows = sum(share_y[k][:, None, None] * rgb[y[k], first:last] for k in range(taps))
    mixed = sum(share_x[k][None, :, None] * rows[:, x[k] - first] for k in range(taps))
    result: NDArray[np.uint8] = np.rint(np.clip(mixed, 0.0, 255.0)).astype(np.uint8)
    return result


def _taps(
    start: float, stop: float, *, size: int, length: int, taps: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For `size` points over [start, stop): the pixels around each and their shares, (taps, size).

    Two taps: linear. Four: Keys's cubic convolution with a = -3/4 (IEEE ASSP 29, 1981), torch's.
    """
    points = start + (np.arange(size) + 0.5) * ((stop - start) / size) - 0.5
    before = np.floor(points)
    offsets = np.arange(taps)[:, None] - (taps // 2 - 1)
    distance = np.abs(points - before - offsets)
    if taps == 2:
        shares = 1.0 - distance
    else:
        near = (1.25 * distance - 2.25) * distance**2 + 1.0
        far = -0.75 * (((distance - 5.0) * distance + 8.0) * distance - 4.0)
        shares = np.where(distance <= 1.0, near, far)
    pixels = np.clip(before.astype(np.int64) + offsets, 0, length - 1)
    return pixels, shares.astype(np.float32)


def normalize(
    pixels: NDArray[np.uint8], p: Preprocessing, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """``(x / 255 - mean) / std``, channels first, as torchvision's ToTensor and Normalize.

    Args:
        pixels: uint8 (..., S, S, 3).
        p: the manifest's preprocessing.
        out: where the result goes; None: new memory.

    Returns:
        float32 (..., 3, S, S), contiguous.

    Raises:
        ValueError: `pixels` is not uint8 of that shape, or `out` not what the result is.
    """
    if pixels.dtype != np.uint8 or pixels.ndim < 3 or pixels.shape[-1] != 3:
        raise ValueError(
            f"pixels: expected uint8 (..., S, S, 3), got {pixels.dtype} {pixels.shape}"
        )
    # A byte has 256 values: look them up instead of computing each one again.
    levels = np.arange(256, dtype=np.float32) / np.float32(255.0)
    *leading, height, width, _ = pixels.shape
    shape = (*leading, 3, height, width)
    result = np.empty(shape, dtype=np.float32) if out is None else out
    if result.shape != shape or result.dtype != np.float32:
        raise ValueError(f"out: expected float32 {shape}, got {result.dtype} {result.shape}")
    for channel in range(3):
        table = (levels - np.float32(p.mean[channel])) / np.float32(p.std[channel])
        result[..., channel, :, :] = table[pixels[..., channel]]
    return result
