"""The sets of Motion World: what is drawn for which purpose, reproducible from a seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.data.motion_world.drawing import Camera, Frames, Scene, draw
from training.data.motion_world.vocabulary import (
    ATTRIBUTES,
    NARROW,
    NOUNS,
    SOURCE_PAIRS,
    UNSEEN_NOUN_PAIRS,
    UNSEEN_PAIRS,
    VERBS,
    WIDE,
    Style,
    attribute_label,
    pair_label,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASS_SETS = ("source", "unseen-pairs", "unseen-nouns", "unseen-attributes")
VIDEO_SETS = (*CLASS_SETS, "retrieval")


@dataclass(frozen=True)
class Example:
    """One video: its scene, its class in words (one of the set's labels), and all that is in it.

    In *retrieval* every video is its own class: label and caption are the same.
    """

    scene: Scene
    label: str
    caption: str


def labels(name: str) -> tuple[str, ...]:
    """Class names of a video set, in a fixed order.

    Raises:
        ValueError: no such set, or a set without classes.
    """
    known: dict[str, Callable[[], tuple[str, ...]]] = {
        "source": lambda: tuple(pair_label(*pair) for pair in SOURCE_PAIRS),
        "unseen-pairs": lambda: tuple(pair_label(*pair) for pair in UNSEEN_PAIRS),
        "unseen-nouns": lambda: tuple(pair_label(*pair) for pair in UNSEEN_NOUN_PAIRS),
        "unseen-attributes": lambda: tuple(attribute_label(*each) for each in ATTRIBUTES),
    }
    if name not in known:
        raise ValueError(f"set: {name!r} has no labels; sets with labels are {', '.join(known)}")
    return known[name]()


def full_caption(scene: Scene) -> str:
    """Everything the world's words can say of a scene."""
    return (
        f"{scene.colour} {scene.texture} {scene.noun} {scene.verb}"
        f" on a {scene.background} background"
    )


def _generator(seed: int, name: str, split: Split, index: int) -> tuple[int, ...]:
    # The set's name as bytes, not hash(): Python salts hash() per process.
    return (seed, SPLITS.index(split), int.from_bytes(name.encode(), "big") % 2**32, index)


def _dress(
    rng: np.random.Generator, style: Style, noun: str, verb: str, seed: tuple[int, ...]
) -> Scene:
    colour = style.colours[int(rng.integers(len(style.colours)))]
    texture = style.textures[int(rng.integers(len(style.textures)))]
    background = style.backgrounds[int(rng.integers(len(style.backgrounds)))]
    return Scene(noun, verb, colour, texture, background, (*seed, 1))


def examples(name: str, split: Split, *, count: int, seed: int) -> Iterator[Example]:
    """The first ``count`` examples of a video set; classes take turns, so that they are balanced.

    Raises:
        ValueError: no such set or split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    if name not in VIDEO_SETS:
        raise ValueError(f"set: {name!r} is not one of {', '.join(VIDEO_SETS)}")
    pairs = {
        "source": SOURCE_PAIRS,
        "unseen-pairs": UNSEEN_PAIRS,
        "unseen-nouns": UNSEEN_NOUN_PAIRS,
    }
    for index in range(count):
        key = _generator(seed, name, split, index)
        rng = np.random.Generator(np.random.PCG64((*key, 0)))
        if name in pairs:
            noun, verb = pairs[name][index % len(pairs[name])]
            scene = _dress(rng, NARROW, noun, verb, key)
            label = pair_label(noun, verb)
        elif name == "unseen-attributes":
            colour, texture, noun = ATTRIBUTES[index % len(ATTRIBUTES)]
            verb = VERBS[int(rng.integers(len(VERBS)))]
            background = WIDE.backgrounds[int(rng.integers(len(WIDE.backgrounds)))]
            scene = Scene(noun, verb, colour, texture, background, (*key, 1))
            label = attribute_label(colour, texture, noun)
        else:
            noun = NOUNS[int(rng.integers(len(NOUNS)))]
            verb = VERBS[int(rng.integers(len(VERBS)))]
            scene = _dress(rng, WIDE, noun, verb, key)
            label = full_caption(scene)
        yield Example(scene, label, full_caption(scene))


def _image_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption as people write them: it leaves things out, but never the noun."""
    parts = (
        (scene.colour, 0.75),
        (scene.texture, 0.6),
        (scene.noun, 1.0),
        (scene.verb, 0.7),
        (f"on a {scene.background} background", 0.4),
    )
    return " ".join(words for words, share in parts if rng.random() < share)


def image(index: int, *, seed: int, pixels: int) -> tuple[Frames, str]:
    """Picture ``index`` of the CLIP stage's set: one long exposure, every word, every style.

    Returns:
        the picture, uint8 (pixels, pixels, 3), and its caption. The exposure is 0.1 to 0.5 s:
        motion leaves blur, so a verb is seen a little, but never its direction.
    """
    key = _generator(seed, "images", "train", index)
    rng = np.random.Generator(np.random.PCG64((*key, 0)))
    noun = NOUNS[int(rng.integers(len(NOUNS)))]
    verb = VERBS[int(rng.integers(len(VERBS)))]
    scene = _dress(rng, WIDE, noun, verb, key)
    exposure = 0.1 + 0.4 * float(rng.random())
    begin = float(rng.random()) * (2.0 - exposure)
    camera = Camera(
        pixels=pixels, frames=1, exposure_seconds=exposure, samples=5, begin_seconds=begin
    )
    return draw(scene, camera)[0], _image_caption(scene, rng)
