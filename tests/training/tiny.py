"""A model store with one artefact of random weights, made in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.videoclip.manifest import LambdaPoint, Preprocessing, Sampling
from service.videoclip.tokenizing import build_tokenizer_json
from training.artefact import Description
from training.models.network import VideoCLIP, build
from training.publish import publish

MERGES = (("e", "d</w>"), ("r", "ed</w>"), ("o", "f</w>"))
VOCABULARY_SIZE = 512 + len(MERGES) + 2
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 40,
        "patch_size": 20,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": VOCABULARY_SIZE,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
    "quick_gelu": True,
    "temporal": "neighbour",
}
FRAMES = 8

# What may be added to CLIP, alone and together. The text tower has two layers, the visual three.
PROMPTS = {"vision": 3, "vision_depth": 2, "text": 4, "text_depth": 2}
SYSTEMS: dict[str, dict[str, Any]] = {
    "neighbour": {"temporal": "neighbour"},
    "frames": {"temporal": "none"},
    "prompts": {"temporal": "none", "prompts": PROMPTS},
    "t-trans": {"temporal": "none", "temporal_head": "t-trans"},
    "token-t1d": {"temporal": "none", "temporal_head": "token-t1d"},
    "t1d": {"temporal": "none", "temporal_head": "t1d"},
    "t-trans, neighbour": {"temporal": "neighbour", "temporal_head": "t-trans"},
    "everything": {"temporal": "neighbour", "temporal_head": "token-t1d", "prompts": PROMPTS},
}


def system(name: str) -> dict[str, Any]:
    """The architecture of one of `SYSTEMS`."""
    vision = {**ARCHITECTURE["vision_cfg"], "layers": 3}
    return {**ARCHITECTURE, "vision_cfg": vision, **SYSTEMS[name]}


def unlike(network: VideoCLIP, *, seed: int = 0) -> VideoCLIP:
    """The same network with no weight at a special value: biases and kernels are random too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.1 * float(parameter.abs().mean()) + 0.02)
    return network


def tiny_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of two end points that share their text tower, as Open-VCLIP's do."""
    clip = {n: t.clone() for n, t in build(ARCHITECTURE, seed=1).state_dict().items()}
    other = build(ARCHITECTURE, seed=2).state_dict()
    tuned = {n: (other[n] if n.startswith("visual.") else t).clone() for n, t in clip.items()}
    tuned["logit_scale"] = clip["logit_scale"] + 0.25
    return clip, tuned


def tiny_description(name: str = "tiny") -> Description:
    """Everything about the artefact that is not its weights."""
    curve = tuple(
        LambdaPoint(clip_weight=weight, scores={"nothing": 50.0}, spread={"nothing": 0.0})
        for weight in (0.0, 0.4, 1.0)
    )
    return Description(
        name=name,
        recipe="open_vclip",
        architecture=ARCHITECTURE,
        sampling=Sampling(mode="uniform", frames=FRAMES),
        preprocessing=Preprocessing(
            image_size=40,
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
        ),
        tokenizer_json=build_tokenizer_json(MERGES),
        template_set="none",
        licence="Apache-2.0",
        default_clip_weight=0.4,
        clip_weight_rule="fixed by the test",
        curve=curve,
        background_labels=("nothing",),
        card="Random weights. It knows nothing.",
    )


def real_clips() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two clips with a bright square that moves. float32 (2, T, 3, 40, 40)."""
    clips = np.full((2, FRAMES, 3, 40, 40), -1.0, dtype=np.float32)
    for t in range(FRAMES):
        clips[0, t, :, 10:20, 3 * t : 3 * t + 10] = 1.5
        clips[1, t, 0, 3 * t : 3 * t + 10, 10:20] = 2.0
    return clips


def build_tiny_store(root: Path) -> Path:
    """Publish one artefact with distinct end points into the model store `root`; returns `root`.

    8 frames of 40 x 40 pixels, default clip_weight 0.4, name "tiny".
    """
    clip, tuned = tiny_weights()
    with torch.random.fork_rng(devices=[]):
        publish(
            tiny_description(),
            clip=clip,
            tuned=tuned,
            store=root,
            real_clips=real_clips(),
            real_texts=("a red square", "something else entirely"),
        )
    return root
