"""Open-VCLIP++ (Wu et al., TPAMI 2024): Open-VCLIP, and videos that match what is said of them.

To Open-VCLIP's loss comes CLIP's own (eq. 12), of videos and their generated captions
(`training.captioning`). No training code was ever released, and the paper leaves open how captions
and the rest of Open-VCLIP meet: each such question is one of the settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.pooling import Pooling
from training.distributed import gather_with_gradient
from training.errors import Refusal
from training.frozen_classifiers import clip_text
from training.losses import classification_loss, contrastive_loss, video_logits
from training.models.network import VideoCLIP
from training.recipe import Batch, Encode, Recipe

POOLING: Pooling = "normalize_then_mean"


@dataclass(frozen=True, kw_only=True)
class OpenVCLIPPPSettings:
    """What the paper adds to Open-VCLIP.

    caption_weight: of the caption loss. With 0, 1, 2, 3 and 4 the paper has (table VII; B/16) 83.5,
    83.9, 83.9, 84.0 and 84.1 on UCF-101 and 31.3, 33.0, 33.2, 33.9 and 34.6 R@1 on MSR-VTT.
    The paper is silent on the others:
    text: whether the text tower learns from the captions. Open-VCLIP's is frozen. Class rows are
    CLIP's in both cases: a network with a trained text tower has others when it is served.
    captions_in_interpolated_pass: whether the gradient at the interpolated weights has a caption
    part, too.
    negatives: of a caption, "all" other captioned videos in the batch, those of other processes
    included, or only the "own" process's. With accumulation a batch is its part.
    temperature: of the caption loss; None shares the logit scale with the classes, and trains it.
    """

    caption_weight: float = 4.0
    text: Literal["frozen", "trained"] = "frozen"
    captions_in_interpolated_pass: bool = True
    negatives: Literal["all", "own"] = "all"
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.caption_weight >= 0.0:
            raise Refusal(f"caption_weight = {self.caption_weight}: 0 or more")
        if self.temperature is not None and not self.temperature > 0.0:
            raise Refusal(f"temperature = {self.temperature}: above 0")


def architecture(settings: OpenVCLIPPPSettings) -> dict[str, Any]:  # noqa: ARG001
    """Attention to neighbouring frames, as in Open-VCLIP."""
    return {"temporal": "neighbour", "temporal_head": "none", "prompts": None}


class OpenVCLIPPP(Recipe):
    """Cross-entropy against CLIP's class rows, and InfoNCE of videos and captions."""

    needs_captions = True
    classifier: Tensor

    def __init__(
        self, network: VideoCLIP, *, classifier: Tensor, settings: OpenVCLIPPPSettings
    ) -> None:
        """Train `network` in place. classifier: float (C, D), unit rows, constant."""
        super().__init__()
        self.network = network
        self.settings = settings
        self.register_buffer(
            "classifier", classifier.to(network.logit_scale.device), persistent=False
        )

    def trained(self) -> dict[str, float]:
        """Visual tower and logit scale; the text tower, too, if the settings say so."""
        return {
            name: 1.0
            for name, _ in self.named_parameters()
            if self.settings.text == "trained"
            or name.startswith("network.visual.")
            or name == "network.logit_scale"
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss; its parts "classes" and "captions"; and "captioned", a share of the clips.

        "captions" is 0 where no clip of the batch has one, or the pass goes without.
        """
        if batch.labels is None:
            raise Refusal("open_vclip_pp: the training set has no classes; it needs them")
        frames = self.network.encode_frames(batch.frames)  # (B, T, D)
        scale = self.network.logit_scale
        classes = classification_loss(
            video_logits(frames, self.classifier, logit_scale=scale), batch.labels
        )
        captions, captioned = self._caption_loss(frames, batch)
        return {
            "loss": classes + self.settings.caption_weight * captions,
            "classes": classes,
            "captions": captions,
            "captioned": captioned,
        }

    def _caption_loss(self, frames: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean over captioned videos, and their share of this process's clips."""
        settings = self.settings
        nothing = frames.new_zeros((), dtype=torch.float32)
        if batch.captions is None:
            return nothing, nothing
        there = batch.captioned
        if there is None:
            there = torch.ones(len(batch.captions), dtype=torch.bool, device=frames.device)
        share = there.float().mean()
        if batch.interpolated and not settings.captions_in_interpolated_pass:
            return nothing, share
        with torch.set_grad_enabled(torch.is_grad_enabled() and settings.text == "trained"):
            texts = self.network.encode_text(batch.captions)
        # bf16 would round the logits: at CLIP's scale of 100 to 0.5.
        with torch.autocast(frames.device.type, enabled=False):
            videos = F.normalize(frames.float(), dim=-1).mean(dim=1)
            # Unit vectors, as the service's search compares them.
            videos, texts = F.normalize(videos, dim=-1), F.normalize(texts.float(), dim=-1)
            if settings.negatives == "all":
                # Rows without a caption travel too: all processes must send as many.
                videos, texts = gather_with_gradient(videos), gather_with_gradient(texts)
                there = gather_with_gradient(there.float()).bool()
            if not bool(there.any()):
                return nothing, share
            scale = self.network.logit_scale
            if settings.temperature is not None:
                scale = -torch.full_like(scale, settings.temperature).log()
            return contrastive_loss(videos[there], texts[there], logit_scale=scale), share


def recipe(
    network: VideoCLIP,
    *,
    settings: OpenVCLIPPPSettings,
    classes: Sequence[str],
    encode: Encode,
    templates: tuple[str, ...],
    original: Mapping[str, Tensor],  # noqa: ARG001 (the network begins as CLIP, its text tower too)
    seed: int,  # noqa: ARG001 (nothing is drawn here)
) -> OpenVCLIPPP:
    """Open-VCLIP++ for a network of `architecture`, whose text tower is CLIP's."""
    classifier = clip_text(network, classes, encode=encode, templates=templates)
    return OpenVCLIPPP(network, classifier=classifier, settings=settings)
