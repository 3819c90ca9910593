"""Prompt templates by name: the sentences in which a label is shown to the text encoder."""

from __future__ import annotations

PLACEHOLDER = "{}"

_MEDIA = ("photo", "video", "example", "demonstration")
_KINETICS_FORMS = (
    "{}.",
    "a person {}.",
    "a person using {}.",
    "a person doing {}.",
    "a person during {}.",
    "a person performing {}.",
    "a person practicing {}.",
)
_UCF_FORMS = ("{}", "using {}", "doing {}", "during {}", "performing {}", "practicing {}")

TEMPLATES: dict[str, tuple[str, ...]] = {
    # The 28 sentences of OpenAI's Kinetics list, used by Open-VCLIP; "a example" is theirs.
    "kinetics": tuple(f"a {medium} of {form}" for medium in _MEDIA for form in _KINETICS_FORMS),
    # The 48 sentences of OpenAI's UCF101 list, used by FitCLIP for UCF101 and HMDB51.
    "ucf101": tuple(
        f"a {medium} of {article} person {form}."
        for medium in _MEDIA
        for article in ("a", "the")
        for form in _UCF_FORMS
    ),
    # OpenAI's subset of seven for ImageNet (notebook "Prompt Engineering for ImageNet").
    "openai-imagenet-7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "vifi-clip": ("a photo of a {}.",),
    # The learned vectors of its second stage stand before the label, in place of words.
    "vifi-clip-prompts": ("{}.",),
    "text4vis": ("a video of a person {}.",),
    "motion-world": ("a video of a {}.", "a {}.", "a picture of a {}."),
    "none": ("{}",),
}


def apply(template: str, label: str) -> str:
    """The sentence that `template` makes of `label`.

    The label is put in by plain replacement, never by `str.format`: a label such as
    ``{0.__class__}`` stays text.

    Raises:
        ValueError: the template does not hold exactly one ``{}``.
    """
    count = template.count(PLACEHOLDER)
    if count != 1:
        raise ValueError(f"template {template!r}: expected '{{}}' exactly once, found {count}")
    return template.replace(PLACEHOLDER, label)
