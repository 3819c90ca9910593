"""ViFi-CLIP's checkpoints: `.pth` of full fine-tuning, and of the prompts of its second stage.

The file is a dict with `model`, every name with `module.` before it, beside optimiser, schedule and
settings (a yacs object, which only a sandbox should read). The token embedding is frozen and not
in the file; what is there of class names of the training is not needed here.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from service.videoclip.manifest import Sampling
from training.conversion import Rule, rename
from training.foreign_model import (
    ForeignModel,
    ImportRefused,
    architecture_of,
    converted,
    preprocessing_of,
    require_quick_gelu,
)
from training.start import Start
from training.weights import read_checkpoint

SECTION = "model"
_CLASSES = "embeddings of the class names of its training"
RULES = (
    Rule("prompt_learner.complete_text_embeddings", None, _CLASSES),
    Rule("prompt_learner.token_prefix", None, _CLASSES),
    Rule("prompt_learner.token_suffix", None, _CLASSES),
    Rule("prompt_learner.ctx", "prompts.context"),
    Rule("image_encoder.VPT", "visual.prompts.context"),
    Rule("image_encoder.", "visual."),
    Rule("text_encoder.", ""),
)
_DEEP = re.compile(r"^(image_encoder|text_encoder)\.transformer\.resblocks\.(\d+)\.VPT_shallow$")
_IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


def convert(path: Path, original: Start) -> ForeignModel:
    """Read one file. Raises WeightsError and ImportRefused."""
    require_quick_gelu(original, whose="ViFi-CLIP")
    checkpoint = read_checkpoint(path, section=SECTION)
    tensors, depths = _stacked(checkpoint.tensors, where=str(path))
    renamed = rename(replace(checkpoint, tensors=tensors), RULES)
    prompts = {
        "vision": _length(renamed.weights, "visual.prompts.context"),
        "vision_depth": depths["visual."],
        "text": _length(renamed.weights, "prompts.context"),
        "text_depth": depths[""],
    }
    prompted = bool(prompts["vision"] or prompts["text"])
    architecture = architecture_of(original, **({"prompts": prompts} if prompted else {}))
    size = original.preprocessing.image_size
    stage = "the prompts of its second stage" if prompted else "both towers fine-tuned"
    return ForeignModel(
        recipe="vifi_clip",
        converted=converted(
            renamed,
            architecture,
            original=original,
            from_clip={"frozen, and not in such files": ["token_embedding.weight"]},
        ),
        # Of the fully supervised ones 16; neither the weights nor the names tell which they are.
        sampling=Sampling(mode="uniform", frames=32),
        frames_from="nothing",
        preprocessing=preprocessing_of(
            original,
            resize_size=size * 256 // 224,
            interpolation="bilinear_without_antialias",
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
        pooling="mean_then_normalize",
        template_set="vifi-clip-prompts" if prompts["text"] else "vifi-clip",
        clip_weight=0.0,
        clip_weight_rule="published: ViFi-CLIP is used as it was tuned, without CLIP's weights",
        licence="MIT (ViFi-CLIP's repository); of CLIP: " + original.manifest.licence,
        card=f"CLIP as tuned by the authors of ViFi-CLIP (CVPR 2023), {stage}. Frames are seen one "
        "by one and their vectors averaged; pixels are normalised with ImageNet's mean and "
        "deviation. Their labels of UCF-101 are written as one word (`ApplyEyeMakeup`).",
    )


def _length(weights: Mapping[str, Tensor], name: str) -> int:
    return len(weights[name]) if name in weights else 0


def _stacked(
    tensors: Mapping[str, Tensor], *, where: str
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """One tensor for the deep prompts of a tower, and how many layers of each tower have prompts.

    In the file each layer but the first holds its own. A tower is "visual." or "".
    """
    towers = {"image_encoder": "visual.", "text_encoder": ""}
    inputs = {"visual.": "image_encoder.VPT", "": "prompt_learner.ctx"}
    layers: dict[str, dict[int, Tensor]] = {tower: {} for tower in towers.values()}
    rest = {}
    for name, tensor in tensors.items():
        match = _DEEP.match(name)
        if match:
            layers[towers[match[1]]][int(match[2])] = tensor
        else:
            rest[name] = tensor
    depths = {}
    for tower, deep in layers.items():
        found = sorted(deep)
        shapes = {tuple(tensor.shape) for tensor in deep.values()}
        first = rest.get(inputs[tower])
        depths[tower] = 0 if first is None else 1 + len(found)
        if not deep:
            continue
        if first is None or found != list(range(1, len(found) + 1)):
            raise ImportRefused(
                f"{where}: VPT_shallow in the layers {found} of the {tower or 'text.'}transformer: "
                f"expected the layers from 1 on, and {inputs[tower]}"
            )
        if shapes != {tuple(first.shape)}:
            raise ImportRefused(
                f"{where}: VPT_shallow of the {tower or 'text.'}transformer has the shapes "
                f"{sorted(shapes)}, but {inputs[tower]} has {tuple(first.shape)}"
            )
        rest[f"{tower}prompts.deep"] = torch.stack([deep[layer] for layer in found])
    return rest, depths
