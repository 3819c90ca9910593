"""The words of Motion World and which of them each set may use.

The world is built so that fine-tuning can both help and hurt. *Source* (its Kinetics-400) names
only nouns and verbs, and varies colours, textures and backgrounds little; CLIP has seen all of
them. So a tuned network gains verbs and is free to forget attributes.
"""

from dataclasses import dataclass

SOURCE_NOUNS = (
    "star",
    "heart",
    "arrow",
    "cross",
    "triangle",
    "square",
    "crescent",
    "wheel",
    "hourglass",
    "drop",
    "house",
    "flag",
)
IMAGE_ONLY_NOUNS = ("mushroom", "pie", "ladder", "hexagon")
NOUNS = SOURCE_NOUNS + IMAGE_ONLY_NOUNS

VERBS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "bouncing",
    "spinning clockwise",
    "spinning counterclockwise",
    "growing",
    "shrinking",
    "orbiting",
    "zigzagging",
    "falling",
    "blinking",
    "shaking",
    "swinging",
    "pulsing",
)

# Linear RGB in 0..1. They are far apart so that chroma subsampling does not merge two of them.
COLOURS = {
    "red": (0.86, 0.13, 0.13),
    "green": (0.15, 0.70, 0.20),
    "blue": (0.18, 0.30, 0.92),
    "yellow": (0.94, 0.88, 0.15),
    "orange": (0.95, 0.52, 0.08),
    "purple": (0.58, 0.18, 0.74),
    "cyan": (0.20, 0.85, 0.88),
    "white": (0.95, 0.95, 0.95),
}
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("dark", "gradient", "checkered", "grainy")


@dataclass(frozen=True)
class Style:
    """Which colours, textures and backgrounds a set draws from."""

    colours: tuple[str, ...]
    textures: tuple[str, ...]
    backgrounds: tuple[str, ...]


WIDE = Style(tuple(COLOURS), TEXTURES, BACKGROUNDS)
NARROW = Style(("red", "green", "blue", "yellow"), ("plain", "striped"), ("dark", "gradient"))

# Verbs that are each other's reverse in time.
OPPOSITES = (
    ("moving left", "moving right"),
    ("moving up", "moving down"),
    ("spinning clockwise", "spinning counterclockwise"),
    ("growing", "shrinking"),
)

# Which nouns a verb is seen with, and which it is only asked with, as offsets on the circle of
# nouns. Steps of several lengths, so that verbs do not fall into groups that share their nouns: a
# pair must be composed, not looked up by its group. And none of 5 or 7, so that no noun has a verb
# and its opposite in one set: neighbour attention with a mean over frames gives the same vector for
# a video and its reverse, exactly, so no training could tell such classes apart.
_RULER = (0, 1, 4, 10)
_UNSEEN_RULER = (2, 5, 6)


def _pairs(ruler: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    count = len(SOURCE_NOUNS)
    return tuple(
        (SOURCE_NOUNS[(7 * v + offset) % count], verb)
        for v, verb in enumerate(VERBS)
        for offset in ruler
    )


SOURCE_PAIRS = _pairs(_RULER)  # 64 classes: 16 verbs x 4 nouns
UNSEEN_PAIRS = _pairs(_UNSEEN_RULER)  # 48 classes of the same words, none of them in SOURCE_PAIRS
UNSEEN_NOUN_PAIRS = tuple((noun, verb) for noun in IMAGE_ONLY_NOUNS for verb in VERBS)
ATTRIBUTE_NOUNS = ("star", "cross", "house", "pie")
ATTRIBUTES = tuple(
    (colour, texture, noun)
    for colour in COLOURS
    for texture in TEXTURES
    for noun in ATTRIBUTE_NOUNS
)


def pair_label(noun: str, verb: str) -> str:
    """The label of a noun-verb class, such as ``star moving left``."""
    return f"{noun} {verb}"


def attribute_label(colour: str, texture: str, noun: str) -> str:
    """The label of an attribute class, such as ``red striped star``."""
    return f"{colour} {texture} {noun}"


def verb_groups() -> list[list[str]]:
    """One group of labels per noun: the noun with each verb."""
    return [[pair_label(noun, verb) for verb in VERBS] for noun in NOUNS]
