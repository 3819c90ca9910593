"""Random crops, mirrors and colours: what each paper's set does, and that a clip gets one draw."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import resize_crop
from training.config import ConfigError
from training.data.augment import (
    AUGMENTATIONS,
    AugmentationName,
    area_crop,
    augmentation,
    jittered_crop,
    multi_scale_crop,
)

Pixels = NDArray[np.uint8]
SIZE = 28
PREPROCESSING = Preprocessing(
    image_size=SIZE,
    interpolation="bilinear_without_antialias",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def picture(height: int = 60, width: int = 80, *, seed: int = 0) -> Pixels:
    """Smooth random colours: no two places are alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (1, 3, 5, 6)).astype(np.float32)
    size = (height, width)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size, mode="bilinear")
    result: Pixels = smooth[0].permute(1, 2, 0).numpy().round().astype(np.uint8)
    return result


def augmented(name: AugmentationName, frames: list[Pixels], *, seed: int) -> Pixels:
    """A clip as `VideoSource` makes it of its pictures."""
    transform = augmentation(name).draw(np.random.default_rng(seed), PREPROCESSING)
    return transform.finish(np.stack([transform.shape(frame) for frame in frames]))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(60, 80), (90, 40), (10, 200), (7, 5)])
def test_all_pictures_of_a_clip_get_the_same(
    name: AugmentationName, shape: tuple[int, int]
) -> None:
    """A clip of one picture three times stays one; any size of picture becomes the network's."""
    for seed in range(8):
        clip = augmented(name, [picture(*shape)] * 3, seed=seed)
        assert clip.shape == (3, SIZE, SIZE, 3)
        assert clip.dtype == np.uint8
        assert clip.flags.c_contiguous
        np.testing.assert_array_equal(clip[0], clip[1])
        np.testing.assert_array_equal(clip[0], clip[2])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_draw_gives_the_same_clip(name: AugmentationName) -> None:
    """A seed decides everything, and torch's global generator is left alone."""
    before = torch.random.get_rng_state()
    clips = [augmented(name, [picture()], seed=seed) for seed in (5, 5, 6, 7, 8)]
    np.testing.assert_array_equal(clips[0], clips[1])
    if name != "none":
        assert any(not np.array_equal(clips[0], clip) for clip in clips[2:])
    assert torch.equal(before, torch.random.get_rng_state())


def test_none_is_what_is_served() -> None:
    """Without augmentation a picture is prepared as the service prepares it."""
    expected = resize_crop(picture(), PREPROCESSING)
    np.testing.assert_array_equal(augmented("none", [picture()], seed=3)[0], expected)


@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    size=st.integers(1, 300),
    seed=st.integers(0, 2**31),
)
def test_boxes_lie_in_the_picture(width: int, height: int, size: int, seed: int) -> None:
    """Every crop of every picture is a part of it, and not empty."""
    crops = [AUGMENTATIONS[name].crop for name in AUGMENTATIONS]
    for crop in crops:
        if crop is not None:
            left, top, right, bottom = crop(np.random.default_rng(seed), width, height, size)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height


@pytest.mark.parametrize("shape", [(60, 80), (75, 50)])
def test_open_vclip_resizes_then_crops_then_mirrors(shape: tuple[int, int]) -> None:
    """A clip is a square, mirrored or not, of the whole picture resized to S to 8/7 S."""
    source = picture(*shape)
    tensor = torch.from_numpy(source).permute(2, 0, 1)[None].float()
    resized = {}
    for shorter in range(SIZE, SIZE * 8 // 7 + 1):
        scale = shorter / min(shape)
        size = (int(shape[0] * scale), int(shape[1] * scale))
        larger = torch.nn.functional.interpolate(tensor, size, mode="bilinear")
        resized[shorter] = larger[0].permute(1, 2, 0).numpy()
    sizes = set()
    mirrored = 0
    for seed in range(60):
        found = augmented("open-vclip", [source], seed=seed)[0].astype(np.float32)
        errors = {}
        for shorter, whole in resized.items():
            windows = np.lib.stride_tricks.sliding_window_view(whole, (SIZE, SIZE), axis=(0, 1))
            squares = windows.transpose(0, 1, 3, 4, 2).reshape(-1, SIZE, SIZE, 3)
            for flipped in (False, True):
                candidate = found[:, ::-1] if flipped else found
                error = float(np.abs(squares - candidate).max(axis=(1, 2, 3)).min())
                errors[shorter, flipped] = error
        shorter, flipped = min(errors, key=lambda key: errors[key])
        assert errors[shorter, flipped] <= 0.51  # rounded to whole levels
        sizes.add(shorter)
        mirrored += flipped
    assert sizes == set(resized)
    assert 15 <= mirrored <= 45


def test_vifi_clips_crops_are_of_its_scales_and_places() -> None:
    """Sides of 1, .875, .75, .66 of the shorter side, a step apart at most; five places."""
    scales = (1.0, 0.875, 0.75, 0.66)
    seen = set()
    for seed in range(600):
        box = multi_scale_crop(np.random.default_rng(seed), 300, 200, 224)
        left, top, right, bottom = box
        across, down = (right - left) / 200, (bottom - top) / 200
        i, j = (int(np.argmin(np.abs(np.array(scales) - side))) for side in (across, down))
        assert across == pytest.approx(scales[i])
        assert down == pytest.approx(scales[j])
        assert abs(i - j) <= 1
        places = {
            "corner": left in (0, pytest.approx(300 - across * 200))
            and top in (pytest.approx(0), pytest.approx(200 - down * 200)),
            "middle": left + right == pytest.approx(300) and top + bottom == pytest.approx(200),
        }
        assert any(places.values())
        seen.add((i, j))
    assert len(seen) == 10


@pytest.mark.parametrize("smallest", [0.5, 0.08])
def test_area_crops_are_torchvisions(smallest: float) -> None:
    """Areas from `smallest` to 1 and shapes from 3/4 to 4/3; the middle where nothing fits."""
    areas, ratios = [], []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        left, top, right, bottom = area_crop(rng, 400, 300, 224, smallest=smallest)
        areas.append((right - left) * (bottom - top) / 120_000)
        ratios.append((right - left) / (bottom - top))
    assert smallest <= min(areas) < smallest + 0.05
    assert 0.9 < max(areas) <= 1.0
    assert 3 / 4 - 1e-9 <= min(ratios) < 0.8
    assert 1.25 < max(ratios) <= 4 / 3 + 1e-9
    rng = np.random.default_rng(0)
    middle = area_crop(rng, 1000, 10, 224, smallest=0.5)
    assert middle == pytest.approx((493.33, 0, 506.67, 10), abs=0.01)


def test_sizes_follow_the_networks() -> None:
    """The jitter of the shorter side is S to 8/7 S for any S, so the box is 7/8 of it or more."""
    for size in (8, 56, 224, 336):
        shares = []
        for seed in range(300):
            _, top, _, bottom = jittered_crop(np.random.default_rng(seed), 640, 480, size)
            shares.append((bottom - top) / 480)
        assert 7 / 8 - 0.01 <= min(shares) < 0.9
        assert 0.98 < max(shares) <= 1.0 + 1e-6


def test_colours_change_where_a_paper_changes_them() -> None:
    """Of one colour a clip stays of one; the sets without colours keep it as it is."""
    flat = np.full((40, 40, 3), (200, 90, 30), dtype=np.uint8)
    kept: dict[str, int] = {}
    grey: dict[str, int] = {}
    for name in ("none", "open-vclip", "fitclip", "open-vclip-paper", "vifi-clip", "text4vis"):
        clips = np.stack([augmented(name, [flat], seed=seed)[0] for seed in range(200)])
        assert np.all(clips == clips[:, :1, :1])
        colours = clips[:, 0, 0].astype(int)
        kept[name] = int(np.all(colours == (200, 90, 30), axis=1).sum())
        grey[name] = int(np.all(np.ptp(colours, axis=1, keepdims=True) == 0, axis=1).sum())
    assert [kept[name] for name in ("none", "open-vclip", "fitclip")] == [200, 200, 200]
    assert kept["open-vclip-paper"] < 5
    assert 130 < kept["text4vis"] < 185  # .8 of them
    assert 15 < kept["vifi-clip"] < 60  # .2 * .8
    assert 20 < grey["vifi-clip"] < 65  # .2
    assert 20 < grey["text4vis"] < 65


def test_hue_turns_within_a_tenth() -> None:
    """ViFi-CLIP's jitter turns hue by at most .1 of the wheel, the paper of Open-VCLIP's not."""
    flat = np.full((10, 10, 3), (180, 100, 90), dtype=np.uint8)
    hue = colorsys.rgb_to_hsv(180, 100, 90)[0]

    def turns(name: AugmentationName) -> NDArray[np.float64]:
        clips = [augmented(name, [flat], seed=seed)[0, 0, 0] / 255 for seed in range(150)]
        values = np.array([colorsys.rgb_to_hsv(*c)[0] for c in clips if np.ptp(c) > 0.05])
        return (values - hue + 0.5) % 1.0 - 0.5

    assert np.abs(turns("vifi-clip")).max() < 0.13  # of clipped and rounded colours
    assert np.abs(turns("vifi-clip")).max() > 0.07
    assert np.abs(turns("open-vclip-paper")).max() < 0.04


def test_an_unknown_set_is_refused_with_the_names_of_all() -> None:
    """A misspelled set is one clear line."""
    with pytest.raises(ConfigError, match="'openvclip': one of none, open-vclip, "):
        augmentation("openvclip")
