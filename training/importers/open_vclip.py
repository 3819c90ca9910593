"""Open-VCLIP's checkpoints: `swa_2_22.pth` as released, `checkpoint_epoch_*.pyth` of its training.

The file is a dict with `model_state`, every name with `model.` before it; a training checkpoint
holds optimiser, scaler and settings, too, and may keep the original CLIP as `raw_model.*`. It is
fine-tuned CLIP and not yet patched: θ(λ) is what the authors evaluate.
"""

from pathlib import Path

import torch

from service.videoclip.manifest import Sampling
from training.conversion import Renamed, Rule, rename
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

SECTION = "model_state"
RULES = (
    Rule("raw_model.", None, "the original CLIP, kept beside the model while it is trained"),
    Rule("model.", ""),
)
# MODEL.PATCHING_RATIO of the released scripts.
_CLIP_WEIGHT = 0.5
_CLIP_WEIGHT_LARGE = 0.6
# A weight that a ViT-L has, and no smaller one.
_LARGE = "visual.transformer.resblocks.23.ln_1.weight"
# A mean of equal numbers is equal but for rounding, in fp16 at worst.
_SAME = 1e-3


def convert(path: Path, original: Start) -> ForeignModel:
    """Read one file. Raises WeightsError and ImportRefused."""
    require_quick_gelu(original, whose="Open-VCLIP")
    architecture = architecture_of(original, temporal="neighbour")
    checkpoint = read_checkpoint(path, section=SECTION)
    renamed = rename(checkpoint, RULES)
    _set_text_tower_aside(renamed, original)
    large = _LARGE in original.weights
    return ForeignModel(
        recipe="open_vclip",
        converted=converted(
            renamed,
            architecture,
            original=original,
            from_clip={"frozen, and classifiers are CLIP's at every λ": text_names(original)},
        ),
        sampling=Sampling(
            mode="strided",
            frames=8,
            views=3,
            stride_seconds=16 / 30,
        ),
        preprocessing=preprocessing_of(original, interpolation="bilinear_without_antialias"),
        pooling="normalize_then_mean",
        template_set="kinetics",
        clip_weight=_CLIP_WEIGHT_LARGE if large else _CLIP_WEIGHT,
        clip_weight_rule="published: the patching ratio of Open-VCLIP's scripts for this size",
        licence="none stated by Open-VCLIP's authors; of CLIP: " + original.manifest.licence,
        card="CLIP fine-tuned by the authors of Open-VCLIP (ICML 2023) on Kinetics-400: each frame "
        "also sees its two neighbours. Their classifiers come from the original text tower, so "
        "that one is used at every λ.",
    )


def _set_text_tower_aside(renamed: Renamed, original: Start) -> None:
    """Leave out the file's copy of the frozen text tower, if it is there and CLIP's own.

    CLIP's is used in its place, so that texts need not be embedded again when λ changes, and
    rounding in the mean over epochs does not make another tower of it.
    """
    names = [name for name in text_names(original) if name in renamed.weights]
    if len(names) < len(text_names(original)):
        return  # none, or incomplete: `complete` takes CLIP's, or lists what is missing
    clip = original.weights
    alike = all(renamed.weights[n].shape == clip[n].shape for n in names)
    if not alike:
        return  # `complete` lists the shapes
    for name in names:
        size = float(clip[name].abs().max())
        if not torch.allclose(renamed.weights[name], clip[name], rtol=_SAME, atol=_SAME * size):
            raise ImportRefused(
                f"{renamed.where}: {renamed.in_file[name]} is not that of --clip; Open-VCLIP "
                "freezes the text tower, so this was tuned from another CLIP, or by another recipe"
            )
    reason = "CLIP's own text tower, frozen"
    renamed.account.left_out[reason] = [renamed.in_file[n] for n in names]
    for name in names:
        del renamed.weights[name]
