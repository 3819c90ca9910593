"""What is random about a training clip's pictures: crop, mirror, colours. One draw for a clip.

A crop is a box in the upright picture, which becomes the square in one resampling, by the same code
that serves (`service.videoclip.preprocessing.resize_box`). The papers' code resizes, then crops;
the box is that composition's. All sizes are relative to the network's: 256 of 224 in the papers is
8/7 of any other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.videoclip.input_spec import Interpolation
from service.videoclip.manifest import Preprocessing
from service.videoclip.preprocessing import Box, resize_box, resize_crop
from training.config import ConfigError

AugmentationName = Literal[
    "none", "open-vclip", "open-vclip-paper", "vifi-clip", "fitclip", "text4vis", "text4vis-paper"
]
Pixels = NDArray[np.uint8]
#: width, height, the network's image size -> box.
Crop = Callable[[np.random.Generator, int, int, int], Box]
#: uint8 (T, S, S, 3) -> the same, of other colours.
Colours = Callable[[np.random.Generator, Pixels], Pixels]

_RESIZE = 256 / 224
_MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)
#: Corners and the middle, as shares of what the box leaves over.
_MULTI_PLACES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))


@dataclass(frozen=True)
class ClipTransform:
    """What was drawn for one clip. `shape` makes each picture a square, `finish` the clip."""

    shape: Callable[[Pixels], Pixels]
    finish: Callable[[Pixels], Pixels]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """crop: None takes the middle, as in serving. interpolations: one is drawn; empty takes the
    preprocessing's. mirror: whether half of the clips are mirrored. colours: in this order.
    """

    crop: Crop | None = None
    interpolations: tuple[Interpolation, ...] = ()
    mirror: bool = False
    colours: tuple[Colours, ...] = ()

    def draw(self, rng: np.random.Generator, preprocessing: Preprocessing) -> ClipTransform:
        """Draw what one clip gets."""
        size = preprocessing.image_size
        interpolation = preprocessing.interpolation
        if self.interpolations:
            interpolation = self.interpolations[int(rng.integers(len(self.interpolations)))]
        # The size of the pictures is not known yet: the box is drawn from a seed when it is, and
        # comes out the same for all pictures of the clip.
        box_seed, colour_seed = (int(seed) for seed in rng.integers(2**63, size=2))
        mirrored = self.mirror and bool(rng.random() < 0.5)
        crop = self.crop

        def shape(rgb: Pixels) -> Pixels:
            if crop is None:
                return resize_crop(rgb, preprocessing)
            box = crop(np.random.default_rng(box_seed), rgb.shape[1], rgb.shape[0], size)
            return resize_box(rgb, box, size=size, interpolation=interpolation)

        def finish(clip: Pixels) -> Pixels:
            if mirrored:
                clip = clip[:, :, ::-1]
            colour_rng = np.random.default_rng(colour_seed)
            for change in self.colours:
                clip = change(colour_rng, clip)
            return np.ascontiguousarray(clip)

        return ClipTransform(shape=shape, finish=finish)


def jittered_crop(rng: np.random.Generator, width: int, height: int, size: int) -> Box:
    """Open-VCLIP: the shorter side becomes U[S, 8/7 S], then a random square of S is cut out."""
    shorter = round(rng.uniform(size, size * _RESIZE))
    scale = shorter / min(width, height)
    new_width, new_height = max(int(width * scale), size), max(int(height * scale), size)
    left = int(rng.integers(new_width - size, endpoint=True))
    top = int(rng.integers(new_height - size, endpoint=True))
    scale_x, scale_y = width / new_width, height / new_height
    return _inside(
        (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y),
        width,
        height,
    )


def multi_scale_crop(rng: np.random.Generator, width: int, height: int, size: int) -> Box:  # noqa: ARG001
    """ViFi-CLIP: sides of 1, .875, .75 or .66 of the shorter one, at most a step apart, put into a
    corner or the middle.
    """
    pairs = [
        (across, down)
        for i, across in enumerate(_MULTI_SCALES)
        for j, down in enumerate(_MULTI_SCALES)
        if abs(i - j) <= 1
    ]
    across, down = pairs[int(rng.integers(len(pairs)))]
    shorter = min(width, height)
    across, down = across * shorter, down * shorter
    x, y = _MULTI_PLACES[int(rng.integers(len(_MULTI_PLACES)))]
    return _at(x * (width - across), y * (height - down), across, down, width, height)


def area_crop(
    rng: np.random.Generator,
    width: int,
    height: int,
    size: int,  # noqa: ARG001
    *,
    smallest: float,
) -> Box:
    """FitCLIP, Text4Vis: `smallest` to 1 of the area, 3/4 to 4/3 as wide as high.

    torchvision's RandomResizedCrop: ten tries, then the largest middle part of a permitted shape.
    """
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1.0)
        ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        across, down = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if across <= width and down <= height:
            left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
            return _at(left, top, across, down, width, height)
    across, down = min(float(width), height * 4 / 3), min(float(height), width * 4 / 3)
    return _at((width - across) / 2, (height - down) / 2, across, down, width, height)


def _at(left: float, top: float, across: float, down: float, width: int, height: int) -> Box:
    return _inside((left, top, left + across, top + down), width, height)


def _inside(box: Box, width: int, height: int) -> Box:
    """Undo the rounding that can push a box out of the picture."""
    left, top, right, bottom = box
    return (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))


def _jitter(rng: np.random.Generator, clip: Pixels, *, share: float, hue: float,
            saturation: float) -> Pixels:  # fmt: skip
    if rng.random() >= share:
        return clip
    from training.data import colours  # torchvision: seconds of import, for those who need it

    return colours.jitter(clip, rng, brightness=0.4, contrast=0.4, saturation=saturation, hue=hue)


def _grey(rng: np.random.Generator, clip: Pixels, *, share: float) -> Pixels:
    if rng.random() >= share:
        return clip
    from training.data import colours

    return colours.grey(clip)


def _rand_augment(rng: np.random.Generator, clip: Pixels) -> Pixels:
    from training.data import colours

    return colours.rand_augment(clip, rng, operations=2, magnitude=9)


_JITTERED = Augmentation(crop=jittered_crop, mirror=True)
_TEXT4VIS_CROP = partial(area_crop, smallest=0.08)

AUGMENTATIONS: dict[AugmentationName, Augmentation] = {
    # As in serving.
    "none": Augmentation(),
    # The released scripts: no colours.
    "open-vclip": _JITTERED,
    # The paper names colour jitter, without strengths; .4 each and no hue are ours.
    "open-vclip-paper": Augmentation(
        crop=jittered_crop,
        mirror=True,
        colours=(partial(_jitter, share=1.0, saturation=0.4, hue=0.0),),
    ),
    # The released configs; the paper names no colours.
    "vifi-clip": Augmentation(
        crop=multi_scale_crop,
        mirror=True,
        colours=(
            partial(_jitter, share=0.8, saturation=0.2, hue=0.1),
            partial(_grey, share=0.2),
        ),
    ),
    "fitclip": Augmentation(
        crop=partial(area_crop, smallest=0.5),
        interpolations=("bilinear_without_antialias", "bicubic_without_antialias"),
        mirror=True,
    ),
    # The released code, where RandAugment is commented out.
    "text4vis": Augmentation(
        crop=_TEXT4VIS_CROP, mirror=True, colours=(partial(_grey, share=0.2),)
    ),
    # With the RandAugment (2 operations of strength 9) that the paper names.
    "text4vis-paper": Augmentation(
        crop=_TEXT4VIS_CROP, mirror=True, colours=(partial(_grey, share=0.2), _rand_augment)
    ),
}


def augmentation(name: str) -> Augmentation:
    """The set of that name. Raises ConfigError, which lists the names."""
    for known, value in AUGMENTATIONS.items():
        if known == name:
            return value
    raise ConfigError(f"augmentation = {name!r}: one of {', '.join(AUGMENTATIONS)}")
