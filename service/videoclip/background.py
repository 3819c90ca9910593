"""Everyday labels: the background of independent scores when an artefact brings too few."""

from collections.abc import Sequence
from typing import Final

from service.videoclip.independent import MIN_BACKGROUND

EVERYDAY_LABELS: Final = (
    *("person", "child", "baby", "crowd", "face", "hand", "dog", "cat", "horse", "cow", "bird"),
    *("fish", "insect", "elephant", "bear", "snake", "tree", "flower", "grass", "forest", "leaf"),
    *("mountain", "river", "lake", "sea", "beach", "desert", "snow", "rain", "cloud", "fire"),
    *("sky", "moon", "street", "road", "bridge", "house", "tower", "church", "castle", "garden"),
    *("kitchen", "bedroom", "bathroom", "office", "classroom", "hospital", "shop", "stadium"),
    *("factory", "farm", "airport", "station", "car", "truck", "bus", "train", "bicycle", "boat"),
    *("motorcycle", "airplane", "helicopter", "rocket", "traffic light", "wheel", "engine"),
    *("computer", "telephone", "television", "camera", "clock", "lamp", "mirror", "window"),
    *("door", "stairs", "table", "chair", "bed", "sofa", "shelf", "box", "bag", "suitcase"),
    *("bottle", "cup", "plate", "knife", "spoon", "bread", "cake", "fruit", "vegetable", "meat"),
    *("soup", "coffee", "shirt", "dress", "shoes", "hat", "glasses", "umbrella", "ring", "coin"),
    *("book", "newspaper", "letter", "painting", "statue", "map", "flag", "sign", "toy", "doll"),
    *("ball", "guitar", "piano", "drum", "violin", "microphone", "hammer", "saw", "rope"),
    *("ladder", "scissors", "needle", "paper", "walking", "running", "jumping", "swimming"),
    *("dancing", "singing", "cooking", "eating", "drinking", "sleeping", "reading", "writing"),
    *("drawing", "talking", "laughing", "crying", "kissing", "fighting", "climbing", "falling"),
    *("riding a horse", "driving a car", "playing football", "playing basketball", "skiing"),
    *("surfing", "fishing", "cleaning", "cutting hair", "washing dishes", "opening a door"),
    *("throwing a ball", "lifting weights", "playing the guitar", "brushing teeth", "sunset"),
    *("news broadcast", "cartoon", "video game", "weather map", "concert", "wedding", "parade"),
)
"""Things, places, deeds and kinds of footage, chosen to be ordinary and far apart."""


def background_labels(own: Sequence[str]) -> tuple[list[str], bool]:
    """Return the background labels of an artefact, each once, and whether its `own` were too few.

    With fewer than `MIN_BACKGROUND` of its own, the everyday labels are added: a level taken from
    a handful of labels would be chance.
    """
    distinct = list(dict.fromkeys(own))
    if len(distinct) >= MIN_BACKGROUND:
        return distinct, False
    return list(dict.fromkeys((*distinct, *EVERYDAY_LABELS))), True
