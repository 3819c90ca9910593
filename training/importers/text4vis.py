"""Text4Vis's checkpoints: `k400-vitb-16-f8.pt` and the like.

The file is a dict with `model_state_dict`: the visual tower, the logit scale and, with the temporal
head T-Trans, `fusion_model.*`; older files have that one beside, as `fusion_model_state_dict`.
How many frames it was trained with stands in its name alone, after an `f`.
There is no text tower: classifiers were made with CLIP's. TokenT1D shows in the names
(`control_point.conv.weight`), TSM does (`.net.`), TokenShift, which has no weights, does not.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from service.videoclip.manifest import Sampling
from training.conversion import Rule, rename
from training.foreign_model import (
    ForeignModel,
    ImportRefused,
    architecture_of,
    converted,
    preprocessing_of,
    require_quick_gelu,
    text_names,
)
from training.start import Start
from training.weights import read_checkpoint

SECTION = "model_state_dict"
_FUSION = "fusion_model."
RULES = (Rule(_FUSION, "visual.temporal_head."),)
_CONVOLUTION = ".control_point.conv.weight"


def convert(path: Path, original: Start) -> ForeignModel:
    """Read one file. Raises WeightsError and ImportRefused."""
    require_quick_gelu(original, whose="Text4Vis")
    checkpoint = read_checkpoint(path, section=SECTION, joined={"fusion_model_state_dict": _FUSION})
    head = _temporal_head(checkpoint.tensors, where=str(path))
    architecture = architecture_of(original, temporal_head=head)
    renamed = rename(checkpoint, RULES)
    size = original.preprocessing.image_size
    frames = _frames(path.name)
    return ForeignModel(
        recipe="text4vis",
        converted=converted(
            renamed,
            architecture,
            original=original,
            from_clip={
                "not in such files: classifiers were made with CLIP's": text_names(original)
            },
        ),
        sampling=Sampling(mode="segment_starts", frames=8 if frames is None else frames),
        frames_from="nothing" if frames is None else "name",
        # The authors' configurations for 336 pixels resize to 336, the others to 256 of 224.
        preprocessing=preprocessing_of(
            original,
            resize_size=None if size == 336 else size * 256 // 224,
            interpolation="bilinear",
        ),
        pooling="mean_then_normalize",
        template_set="text4vis",
        clip_weight=0.0,
        clip_weight_rule="published: Text4Vis is used as it was tuned, without CLIP's weights",
        licence="MIT (Text4Vis's repository); of CLIP: " + original.manifest.licence,
        card="CLIP's visual tower as tuned by the authors of Text4Vis (AAAI 2023) against frozen "
        f"classifiers, {_WORDS[head]}. The text tower is CLIP's. Frames are the first of each "
        "segment. Their labels of UCF-101 are written as one word (`ApplyEyeMakeup`).",
    )


_WORDS = {
    "none": "with the mean over frames (TAP)",
    "t-trans": "with a transformer over frames (T-Trans)",
    "token-t1d": "with convolutions over time of the class token (TokenT1D)",
}


def _frames(name: str) -> int | None:
    """16 of `k400-vitb-16-f16.pt`, whose other 16 is a patch; None for names without."""
    found = re.search(r"(?<![0-9a-z])f([1-9]\d?)(?![0-9a-z])", name.lower())
    return None if found is None else int(found[1])


def _temporal_head(names: Iterable[str], *, where: str) -> str:
    """Which temporal modelling the names show. Raises ImportRefused for what is not supported."""
    refused = {
        "visual.layer1.": "a ResNet",
        "visual.attnpool.": "a ResNet",
        "visual.time_embedding": "joint space-time attention",
    }
    found = set()
    for name in names:
        if ".net." in name:
            raise ImportRefused(
                f"{where}: {name} is of a temporal shift module (TSM), which is not supported; "
                "supported are TAP (no head), T-Trans (fusion_model) and TokenT1D (control_point)"
            )
        for beginning, what in refused.items():
            if name.startswith(beginning):
                raise ImportRefused(f"{where}: {name} is of {what}, which is not supported")
        if name.startswith(_FUSION):
            found.add("t-trans")
        elif name.endswith(_CONVOLUTION):
            found.add("token-t1d")
    if len(found) > 1:
        raise ImportRefused(
            f"{where}: holds both T-Trans (fusion_model) and TokenT1D (control_point), which is "
            "not supported"
        )
    return found.pop() if found else "none"
