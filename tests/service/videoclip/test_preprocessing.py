"""The image transform against open_clip's, torchvision's and torch's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import crop_box, normalize, resize_crop
from tests.service.videoclip.films import picture
from training.models.towers import open_clip

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Portrait, landscape, square, large and small enough to be enlarged.
REAL_FILES = (
    "flower.mp4",
    "man-skiing.mp4",
    "videollava_demo_22_drums.mp4",
    "fire2.mp4",
    "bikes.mp4",
    "S001C001P001R001A001_rgb.avi",
    "skateboarding_dog.mp4",
    "portrait_4k60.mp4",
)


def settings_for(size: int) -> Preprocessing:
    """CLIP's preprocessing at another size."""
    return Preprocessing(image_size=size, mean=CLIP_MEAN, std=CLIP_STD)


def reference(rgb: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.float32]:
    """open_clip's inference transform of one picture, float32 (3, S, S)."""
    transform = open_clip().image_transform(
        p.image_size, is_train=False, mean=p.mean, std=p.std, interpolation="bicubic"
    )
    result: NDArray[np.float32] = transform(Image.fromarray(rgb)).numpy()
    return result


def in_grey_levels(normalized: NDArray[np.float32], p: Preprocessing) -> NDArray[np.float64]:
    """Undo the normalisation: 0 .. 255, (3, S, S)."""
    mean, std = (np.array(v)[:, None, None] for v in (p.mean, p.std))
    levels: NDArray[np.float64] = (normalized.astype(np.float64) * std + mean) * 255
    return levels


def differences(rgb: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.float64]:
    """|ours - open_clip's| in grey levels."""
    ours = normalize(resize_crop(rgb, p), p)
    return np.abs(in_grey_levels(ours, p) - in_grey_levels(reference(rgb, p), p))


@pytest.mark.parametrize("size", [224, 40])
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_pictures_differ_from_open_clip_by_two_levels_at_most(
    shared_data: Callable[[str], Path], name: str, size: int
) -> None:
    """At most 2 of 255 anywhere, and under 0.005 on average: one value in hundreds differs."""
    p = settings_for(size)
    with av.open(str(shared_data(f"videos/{name}"))) as container:
        frames = []
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8))
            if len(frames) == 3:
                break
    difference = np.stack([differences(rgb, p) for rgb in frames])
    assert difference.max() < 2.01
    assert difference.mean() < 0.005


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.sampled_from([1, 7, 32, 40]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_noise_of_any_shape_stays_near_open_clip(
    width: int, height: int, size: int, seed: int
) -> None:
    """White noise, the hardest picture, in every aspect, reduced and enlarged.

    In a few narrow shapes Pillow resizes a whole picture down first and then across. Rounding
    and clipping between the passes then shows in noise, by 24 levels at most.
    """
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    difference = differences(rgb, settings_for(size))
    assert difference.max() < 24.01
    assert difference.mean() < 0.7


@pytest.mark.parametrize("size", [224, 336, 40])
@pytest.mark.parametrize(
    ("width", "height"),
    [(640, 480), (640, 360), (1280, 720), (1920, 1080), (854, 480), (426, 240), (340, 256)],
)
def test_usual_shapes_differ_by_two_levels_at_most(width: int, height: int, size: int) -> None:
    """Landscape and portrait, as phones and sites make them."""
    for rgb in (picture(5, width=width, height=height), picture(5, width=height, height=width)):
        difference = differences(rgb, settings_for(size))
        assert difference.max() < 2.01
        assert difference.mean() < 0.002


def test_a_square_of_the_right_size_is_left_alone() -> None:
    """No resampling, no change."""
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_crop(rgb, settings_for(32)), rgb)


def test_a_view_is_accepted() -> None:
    """Upright pictures are turned views, not copies."""
    rgb = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    p = settings_for(32)
    turned = rgb.transpose(1, 0, 2)[:, ::-1]
    np.testing.assert_array_equal(resize_crop(turned, p), resize_crop(turned.copy(), p))


def test_an_endless_strip_costs_no_memory() -> None:
    """100,000 x 1 pixels would become 22,400,000 x 224 if it were resized whole."""
    strip = np.zeros((1, 100_000, 3), dtype=np.uint8)
    strip[0, 50_000:] = 255
    small = resize_crop(strip, settings_for(224))
    assert small.shape == (224, 224, 3)


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), size=st.integers(1, 600))
def test_the_box_is_a_square_of_the_picture(width: int, height: int, size: int) -> None:
    """It lies in the picture and is as large as the shorter side, up to rounding."""
    left, top, right, bottom = crop_box(width, height, size=size)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    short, long = min(width, height), max(width, height)
    # The longer side is rounded down to whole pixels, which can stretch it by this much.
    stretch = (long * size / short) / int(long * size / short)
    assert max(right - left, bottom - top) <= short * stretch * 1.0001
    assert min(right - left, bottom - top) >= short * 0.9999


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_normalize_is_torchvisions_bit_for_bit(seed: int) -> None:
    """ToTensor and Normalize on the same pixels give the same float32 bits."""
    p = settings_for(8)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert normalize(pixels, p).tobytes() == reference(pixels, p).tobytes()


def test_normalize_keeps_the_leading_axes() -> None:
    """(V, T, S, S, 3) becomes contiguous (V, T, 3, S, S), clip by clip alike."""
    p = settings_for(4)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
    result = normalize(pixels, p)
    assert result.shape == (2, 3, 3, 4, 4)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result[1, 2], normalize(pixels[1, 2], p))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "rgba", "float", "empty"],
)
def test_what_is_no_rgb_picture_is_refused(array: NDArray[np.uint8]) -> None:
    """The error shows type and shape."""
    with pytest.raises(ValueError, match=r"rgb: expected uint8 \(H, W, 3\), got"):
        resize_crop(array, settings_for(8))
    if array.size:
        with pytest.raises(ValueError, match=r"pixels: expected uint8"):
            normalize(array, settings_for(8))


def wider(interpolation: str) -> Preprocessing:
    """Shorter side 37, middle 32: as ViFi-CLIP and Text4Vis cut 224 out of 256."""
    return Preprocessing.model_validate(
        {
            "image_size": 32,
            "resize_size": 37,
            "interpolation": interpolation,
            "mean": CLIP_MEAN,
            "std": CLIP_STD,
        }
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (37, 37), (340, 256), (33, 90)])
def test_a_crop_from_a_larger_picture_is_torchvisions(
    interpolation: str, width: int, height: int
) -> None:
    """Resize(37, Pillow's filter) and CenterCrop(32), within two levels."""
    open_clip()  # makes torchvision importable
    tv: Any = importlib.import_module("torchvision.transforms")
    rgb = picture(3, width=width, height=height)
    resize = tv.Resize(37, tv.InterpolationMode(interpolation))
    transform = tv.Compose([resize, tv.CenterCrop(32)])
    expected = np.asarray(transform(Image.fromarray(rgb))).astype(int)
    difference = np.abs(resize_crop(rgb, wider(interpolation)).astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    size=st.sampled_from([1, 7, 32]),
    more=st.integers(0, 9),
    mode=st.sampled_from(["bilinear", "bicubic"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_without_antialias_pixels_are_torchs(
    width: int, height: int, size: int, more: int, mode: str, seed: int
) -> None:
    """`torch.nn.functional.interpolate` on the whole picture, then the middle: half a level."""
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    p = Preprocessing.model_validate(
        {
            "image_size": size,
            "resize_size": size + more if more else None,
            "interpolation": f"{mode}_without_antialias",
            "mean": CLIP_MEAN,
            "std": CLIP_STD,
        }
    )
    short = size + more
    if width <= height:
        shape = (int(short * height / width), short)
    else:
        shape = (short, int(short * width / height))
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    whole = torch.nn.functional.interpolate(planes, shape, mode=mode, align_corners=False)
    top, left = (round((side - size) / 2.0) for side in shape)
    expected = whole[0, :, top : top + size, left : left + size].permute(1, 2, 0).numpy()
    assert np.abs(resize_crop(rgb, p) - expected.clip(0, 255)).max() < 0.51


@pytest.mark.parametrize(
    "interpolation",
    ["bicubic", "bilinear", "bilinear_without_antialias", "bicubic_without_antialias"],
)
def test_every_filter_takes_an_endless_strip(interpolation: str) -> None:
    """Only what survives the crop is resized, whatever the filter."""
    strip = np.zeros((1, 100_000, 3), dtype=np.uint8)
    assert resize_crop(strip, wider(interpolation)).shape == (32, 32, 3)
