"""Open-VCLIP (Weng et al., ICML 2023): fine-tune CLIP's visual tower on video, remember CLIP.

Every frame also sees its two neighbours, at no new weights. The rest of the method regularises
(`training.step_config.RegularisationConfig`). The mean along the way and λ between that mean and
CLIP (eq. 10; `training.interpolate`) are there for every recipe. Interpolated weights (eqs. 7 to 9)
and the ℓ2 penalty look at CLIP's weights, so they are refused where a recipe trains some that CLIP
lacks: prompts, T-Trans, TokenT1D and T1D. Without either this is plain fine-tuning, the paper's
VCLIP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from service.videoclip.pooling import Pooling
from training.errors import Refusal
from training.frozen_classifiers import clip_text
from training.losses import classification_loss, video_logits
from training.models.network import VideoCLIP
from training.recipe import Batch, Encode, Recipe

POOLING: Pooling = "normalize_then_mean"


@dataclass(frozen=True, kw_only=True)
class OpenVCLIPSettings:
    """What the paper adds to CLIP's network, and where its model lies between CLIP and tuned.

    temporal: "none" lets no frame see another: the paper's "CLIP fine-tuned" baseline.
    clip_weight: λ to publish at where no rule chooses one by measurements. The released models have
    0.5, and 0.6 with ViT-L/14, which the paper does not say; at 0.5 ViT-B/16 has 83.5 on UCF-101
    and 53.2 on HMDB-51 (EP2).
    """

    temporal: Literal["neighbour", "none"] = "neighbour"
    clip_weight: float | None = None

    def __post_init__(self) -> None:
        if self.clip_weight is not None and not 0.0 <= self.clip_weight <= 1.0:
            raise Refusal(f"clip_weight = {self.clip_weight}: not within 0 and 1")


def architecture(settings: OpenVCLIPSettings) -> dict[str, Any]:
    """Neighbour attention; nothing that has weights."""
    return {"temporal": settings.temporal, "temporal_head": "none", "prompts": None}


class OpenVCLIP(Recipe):
    """Cross-entropy of clips against CLIP's own class texts, which stay as they are."""

    classifier: Tensor

    def __init__(self, network: VideoCLIP, *, classifier: Tensor) -> None:
        """Train `network` in place. classifier: float (C, D), unit rows."""
        super().__init__()
        self.network = network
        rows = classifier.detach().to(network.logit_scale.device)
        self.register_buffer("classifier", rows, persistent=False)

    def trained(self) -> dict[str, float]:
        """The visual tower and the logit scale, unclamped; the text tower stays frozen."""
        return {
            name: 1.0
            for name, _ in self.named_parameters()
            if name.startswith("network.visual.") or name == "network.logit_scale"
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the batch's labels."""
        if batch.labels is None:
            raise Refusal("open_vclip: the training set has no classes; Open-VCLIP needs them")
        embeddings = self.network.encode_frames(batch.frames)
        logits = video_logits(embeddings, self.classifier, logit_scale=self.network.logit_scale)
        return {"loss": classification_loss(logits, batch.labels)}


def recipe(
    network: VideoCLIP,
    *,
    settings: OpenVCLIPSettings,  # noqa: ARG001 (they are in the network's architecture)
    classes: tuple[str, ...],
    encode: Encode,
    templates: tuple[str, ...],
    original: Mapping[str, Tensor],  # noqa: ARG001 (regularisation is the loop's)
    seed: int,  # noqa: ARG001 (nothing is drawn here)
) -> OpenVCLIP:
    """See `training.recipe.RecipeModule`."""
    rows = clip_text(network, classes, encode=encode, templates=templates)
    return OpenVCLIP(network, classifier=rows)
