"""ViFi-CLIP (Rasheed et al., CVPR 2023): fine-tune all of CLIP on video, with the mean of frames.

Nothing is added to CLIP: frames are encoded one by one, their mean is the video, and both towers
learn, so the class texts are encoded again in every forward pass. A second stage ("bridge and
prompt") freezes such a network and learns only prompt vectors in both towers, for few examples.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.pooling import Pooling
from service.videoclip.prompts import apply
from training.errors import Refusal
from training.losses import (
    classification_loss,
    pooled_video_logits,
    soft_label_loss,
    video_logits,
)
from training.mixing import mix, smooth_labels
from training.models.network import VideoCLIP
from training.recipe import Batch, Encode, Recipe, device_of
from training.weights import read_weights, require_names

POOLING: Pooling = "mean_then_normalize"

Towers = Literal["both", "image", "text"]
Fusion = Literal["embedding", "decision", "image"]

_PROMPTS = ("prompts.", "visual.prompts.")
_NO_CLASSES = "vifi_clip: the training set has no classes, and ViFi-CLIP learns from nothing else"
_STAGE_ONE_FILES = ("tuned.safetensors", "weights_tuned.safetensors")


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Prompt vectors of the second stage: how many a layer has, and in how many layers.

    Depth d is the input and d - 1 deeper layers. The defaults are the released base-to-novel
    configs' (LR 4e-2, 11 epochs: base/novel/HM on HMDB-51 77.1/54.9/64.1, UCF-101 95.9/74.1/83.6);
    few-shot has 10 and 10 of depth 12 and 12 (LR 8e-3, 50 epochs: UCF-101 91.0, 93.7, 95.0 and 96.4
    with K = 2, 4, 8, 16).
    """

    vision: int = 16
    vision_depth: int = 9
    text: int = 16
    text_depth: int = 9


@dataclass(frozen=True, kw_only=True)
class ViFiCLIPSettings:
    """What the paper adds to CLIP. The defaults are the released code's.

    towers: which of them learn; "image" and "text" leave the logit scale alone, as in the code.
    fusion: where frames become a video (the paper's table 5): the mean of embeddings, the mean of
    each frame's logits, or not at all: every frame is a picture of the video's class, and its
    logits are averaged only when the model is used.
    objective: "code" learns mixed clips and smoothed labels, as every released config does, so all
    published numbers are this one's; "paper" learns hard labels, which is all that the paper says.
    train_token_embedding: the paper says that the whole text encoder learns; in the code this one
    matrix is a constant.
    mixup_alpha, cutmix_alpha: of the Beta distributions of `training.mixing`; 0 turns one off.
    label_smoothing: the part of a target that is spread over all classes.
    prompts: the second stage: only these learn. stage_one: whose weights it begins with: the folder
    of a run or of an artefact (its tuned end), or a weight file; None begins with CLIP.
    """

    towers: Towers = "both"
    fusion: Fusion = "embedding"
    objective: Literal["code", "paper"] = "code"
    train_token_embedding: bool = False
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    label_smoothing: float = 0.1
    prompts: PromptSettings | None = None
    stage_one: Path | None = None

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not getattr(self, name) >= 0.0:
                raise Refusal(f"{name} = {getattr(self, name)}: 0 or more")
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise Refusal(f"label_smoothing = {self.label_smoothing}: within 0 and 1")
        frozen_text = self.towers == "image" or self.prompts is not None
        if self.train_token_embedding and frozen_text:
            raise Refusal("train_token_embedding = true: the text tower is frozen here")
        if self.prompts is not None and self.towers != "both":
            raise Refusal(f"towers = {self.towers!r}: with prompts only the prompts learn")

    @property
    def pooling(self) -> Pooling:
        """How the published model makes one vector of its frames."""
        return POOLING if self.fusion == "embedding" else "normalize_then_mean"

    @property
    def clip_weight(self) -> float:
        """λ as published: nothing of CLIP is mixed back in."""
        return 0.0


def architecture(settings: ViFiCLIPSettings) -> dict[str, Any]:
    """Frames on their own, and the second stage's prompts."""
    prompts = None if settings.prompts is None else asdict(settings.prompts)
    return {"temporal": "none", "temporal_head": "none", "prompts": prompts}


class ViFiCLIP(Recipe):
    """Cross-entropy of clips against class texts that are encoded again in every forward pass."""

    token_ids: Tensor
    _constant_classifier: Tensor | None

    def __init__(
        self,
        network: VideoCLIP,
        *,
        token_ids: Tensor,
        templates: int,
        settings: ViFiCLIPSettings,
    ) -> None:
        """Train `network` in place.

        token_ids: int64 (C * templates, L), the sentences of the first class, then of the second.
        With several templates a class is the mean of its unit vectors, as when the model is served;
        the paper has one.
        """
        super().__init__()
        self.network = network
        self.settings = settings
        self.templates = templates
        self.classes = len(token_ids) // templates
        self.register_buffer("token_ids", token_ids.to(device_of(network)), persistent=False)
        texts_change = any(
            not name.startswith("visual.") and name != "logit_scale"
            for name, _ in network.named_parameters()
            if self._learns(name)
        )
        self.register_buffer("_constant_classifier", None, persistent=False)
        if not texts_change:
            with torch.no_grad():
                self._constant_classifier = self.classifier()

    def trained(self) -> dict[str, float]:
        """Towers or prompts, as the settings say; all with the same learning rate."""
        return {
            f"network.{name}": 1.0
            for name, _ in self.network.named_parameters()
            if self._learns(name)
        }

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Smooth the labels and mix the clips that this rank holds, as the released code does."""
        settings = self.settings
        if settings.objective == "paper":
            return batch
        frames, targets = mix(
            batch.frames,
            smooth_labels(_labels(batch), classes=self.classes, smoothing=settings.label_smoothing),
            rng,
            mixup_alpha=settings.mixup_alpha,
            cutmix_alpha=settings.cutmix_alpha,
        )
        return replace(batch, frames=frames, labels=None, soft_labels=targets)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch with labels or, after `prepare`, with soft ones."""
        embeddings = self.network.encode_frames(batch.frames)  # (B, T, D)
        classifier = self._constant_classifier
        if classifier is None:
            classifier = self.classifier()
        frames = 1
        if self.settings.fusion == "image":
            frames = embeddings.shape[1]
            embeddings = embeddings.flatten(0, 1).unsqueeze(1)  # every frame a clip of its own
        head = video_logits if self.settings.fusion == "decision" else pooled_video_logits
        logits = head(embeddings, classifier, logit_scale=self.network.logit_scale)
        if batch.soft_labels is None:
            loss = classification_loss(logits, _labels(batch).repeat_interleave(frames))
        else:
            loss = soft_label_loss(logits, batch.soft_labels.repeat_interleave(frames, dim=0))
        return {"loss": loss}

    def classifier(self) -> Tensor:
        """Unit rows, float32 (C, D), by the text tower as it is now."""
        texts = F.normalize(self.network.encode_text(self.token_ids).float(), dim=-1)
        return F.normalize(texts.view(self.classes, self.templates, -1).mean(dim=1), dim=-1)

    def _learns(self, name: str) -> bool:
        """Whether the network's weight of this name learns."""
        settings = self.settings
        visual = name.startswith("visual.")
        if settings.prompts is not None:
            return name.startswith(_PROMPTS)
        if settings.towers == "image":
            return visual
        if name == "token_embedding.weight":
            return settings.train_token_embedding
        return settings.towers == "both" or not (visual or name == "logit_scale")


def recipe(
    network: VideoCLIP,
    *,
    settings: ViFiCLIPSettings,
    classes: tuple[str, ...],
    encode: Encode,
    templates: tuple[str, ...],
    original: Mapping[str, Tensor],  # noqa: ARG001 (there is no teacher)
    seed: int,  # noqa: ARG001 (nothing is drawn here)
) -> ViFiCLIP:
    """See `training.recipe.RecipeModule`. Loads the first stage's weights if there is one.

    Raises Refusal for a training set without classes, WeightsError when `stage_one` does not fit.
    """
    if not classes:
        raise Refusal(_NO_CLASSES)
    if settings.stage_one is not None:
        _load_stage_one(network, settings.stage_one)
    sentences = [apply(template, name) for name in classes for template in templates]
    return ViFiCLIP(
        network, token_ids=encode(sentences), templates=len(templates), settings=settings
    )


def _load_stage_one(network: VideoCLIP, path: Path) -> None:
    """Take the tuned weights of a run, an artefact or a file; prompts keep their first values."""
    file = path
    if path.is_dir():
        found = [path / name for name in _STAGE_ONE_FILES if (path / name).is_file()]
        if not found:
            raise Refusal(f"stage_one = {str(path)!r}: no {' and no '.join(_STAGE_ONE_FILES)}")
        file = found[0]
    weights = read_weights(file)
    expected = {n: t for n, t in network.state_dict().items() if not n.startswith(_PROMPTS)}
    require_names(weights, expected=expected, where=str(file))
    network.load_state_dict(weights, strict=False)


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise Refusal(_NO_CLASSES)
    return batch.labels
