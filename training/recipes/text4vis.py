"""Text4Vis (Wu et al., AAAI 2023): fine-tune the visual tower towards a classifier that stays.

The classifier's rows are class names in CLIP's words, or in a sentence encoder's, or know nothing
of words at all (`training.frozen_classifiers`): how much words matter is the paper's question.
Frames become a video by their mean or, before it, by a temporal head
(`training.models.temporal_heads`).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.pooling import Pooling
from training.errors import Refusal
from training.frozen_classifiers import (
    CLASSIFIER_FILE,
    ClassifierKind,
    FrozenClassifier,
    clip_text,
    linear_discriminants,
    random_normal,
    random_orthogonal,
    sentence_embeddings,
)
from training.losses import classification_loss, pooled_video_logits
from training.models.architecture import TemporalHead
from training.models.network import VideoCLIP
from training.recipe import Batch, Encode, Recipe

POOLING: Pooling = "mean_then_normalize"

_HEAD = "network.visual.temporal_head."


@dataclass(frozen=True, kw_only=True)
class Text4VisSettings:
    """What the paper adds to CLIP. The defaults are the released ViT-B/16 config's.

    classifier: how the frozen rows are made. Top-1 on Kinetics-400, B/16, 8 frames, one view:
    "clip-text" 81.5 (the only one in the released script), "sentences" 81.4 with DistilBERT, "lda"
    80.8, "random-orthogonal" 59.4, "random-normal" 59.3.
    temporal_head: "none" is the plain mean, TAP: 80.1 with "clip-text", and what the released
    few-shot configs use; "t-trans" 81.5; "token-t1d" 80.4; "t1d" has no figure for a transformer,
    see `training.models.temporal_heads.TokenConvolution`.
    tower_factor: of the learning rate, for visual tower and logit scale: in the code 5e-6, beside
    5e-5 for "t-trans". Convolutions lie in the tower and are slow with it, as in the code.
    lda_videos_per_class: whose CLIP embeddings the discriminants are fitted to (60 in the paper).
    sentence_encoder: folder or hub id of the model for "sentences".
    """

    classifier: ClassifierKind = "clip-text"
    temporal_head: TemporalHead = "t-trans"
    tower_factor: float = 0.1
    lda_videos_per_class: int = 60
    sentence_encoder: str | None = None

    def __post_init__(self) -> None:
        if not self.tower_factor >= 0.0:
            raise Refusal(f"tower_factor = {self.tower_factor}: 0 or more")
        if self.lda_videos_per_class < 2:
            raise Refusal(f"lda_videos_per_class = {self.lda_videos_per_class}: 2 or more")
        if (self.classifier == "sentences") != (self.sentence_encoder is not None):
            raise Refusal(
                "sentence_encoder: needed by classifier = 'sentences', and by nothing else"
            )

    @property
    def clip_weight(self) -> float:
        """The paper's λ: the tuned weights alone."""
        return 0.0


def architecture(settings: Text4VisSettings) -> dict[str, Any]:
    """Frames on their own in the tower, and the temporal head."""
    return {"temporal": "none", "temporal_head": settings.temporal_head, "prompts": None}


def require_free_text(settings: Text4VisSettings) -> None:
    """Refuse to publish a model that can only be asked for the classes it was trained on."""
    if settings.classifier != "clip-text":
        raise Refusal(
            f"text4vis.classifier = {settings.classifier!r}: cannot be published: its videos were "
            "aligned with rows that CLIP's text tower did not make, so no free text can be scored; "
            "publish one with 'clip-text', or evaluate this one on its own classes"
        )


class Text4Vis(Recipe):
    """Cross-entropy of clips against frozen rows; visual tower, head and logit scale learn."""

    _rows: Tensor | None

    def __init__(
        self,
        network: VideoCLIP,
        *,
        settings: Text4VisSettings,
        classes: Sequence[str],
        original: Mapping[str, Tensor],
        rows: Tensor | None,
    ) -> None:
        """Train `network` in place.

        rows: float (C, D), any length; None for rows that `begin` makes of examples. original:
        CLIP's own weights.
        """
        super().__init__()
        self.network = network
        self.settings = settings
        self.classes = tuple(classes)
        if settings.classifier == "lda":
            self.examples_per_class = settings.lda_videos_per_class
        self._original = original
        self.register_buffer("_rows", None, persistent=False)
        if rows is not None:
            self._take(rows)

    @property
    def classifier(self) -> FrozenClassifier:
        """The frozen rows. Raises RuntimeError before `begin` where it is needed."""
        if self._rows is None:
            raise RuntimeError("the classifier is made of examples: call begin first")
        return FrozenClassifier(
            rows=self._rows.cpu(), classes=self.classes, kind=self.settings.classifier
        )

    def begin(self, examples: Iterable[Batch]) -> None:
        """Fit the discriminants to CLIP's embeddings of labelled clips (B, T, 3, S, S)."""
        clip = copy.copy(self.network)  # the same weights, read without the temporal head
        clip.temporal_head = "none"
        device = self.network.logit_scale.device
        original = {name: tensor.to(device) for name, tensor in self._original.items()}
        found, labels = [], []
        for batch in examples:
            with torch.no_grad():
                frames: Tensor = torch.func.functional_call(clip, original, batch.frames)
            found.append(frames.float().mean(dim=1).cpu())
            labels.append(_labels(batch).cpu())
        self._take(
            linear_discriminants(
                torch.cat(found).numpy(), torch.cat(labels).numpy(), classes=self.classes
            )
        )

    def keep(self, folder: Path) -> None:
        """Write the classifier into the run's folder: evaluation on its own classes needs it."""
        self.classifier.save(folder / CLASSIFIER_FILE)

    def trained(self) -> dict[str, float]:
        """Visual tower and logit scale at a share of the learning rate, the head at all of it."""
        return {
            name: 1.0 if name.startswith(_HEAD) else self.settings.tower_factor
            for name, _ in self.named_parameters()
            if name.startswith("network.visual.") or name == "network.logit_scale"
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the batch's labels."""
        assert self._rows is not None
        logits = pooled_video_logits(
            self.network.encode_frames(batch.frames),
            self._rows,
            logit_scale=self.network.logit_scale,
        )
        return {"loss": classification_loss(logits, _labels(batch))}

    def _take(self, rows: Tensor) -> None:
        self._rows = F.normalize(rows.float(), dim=-1).to(self.network.logit_scale.device)


def recipe(
    network: VideoCLIP,
    *,
    settings: Text4VisSettings,
    classes: Sequence[str],
    encode: Encode,
    templates: tuple[str, ...],
    original: Mapping[str, Tensor],
    seed: int,
) -> Text4Vis:
    """Text4Vis for a network of `architecture`. Raises ClassifierError for what cannot be made."""
    size = network.embedding_size
    rows: Tensor | None = None
    match settings.classifier:
        case "clip-text":
            rows = clip_text(network, classes, encode=encode, templates=templates)
        case "sentences":
            assert settings.sentence_encoder is not None
            rows = sentence_embeddings(settings.sentence_encoder, classes, size=size, seed=seed)
        case "random-orthogonal":
            rows = random_orthogonal(len(classes), size=size, seed=seed)
        case "random-normal":
            rows = random_normal(len(classes), size=size, seed=seed)
        case "lda":
            pass  # made of videos, in `begin`
    return Text4Vis(network, settings=settings, classes=classes, original=original, rows=rows)


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise Refusal("text4vis: the training set has no classes; Text4Vis needs them")
    return batch.labels
