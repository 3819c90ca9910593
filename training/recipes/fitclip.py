"""FitCLIP (Castro & Caba Heilbron, BMVC 2022): a student of CLIP that also learns from few labels.

The student, CLIP itself at first, learns two things in every step: to match the clips of a small
labelled set with their texts (eqs. 1 and 2), and on clips without labels to score as the frozen
CLIP does, its teacher (eqs. 3 and 4). The published model lies between student and CLIP
(`training.ensemble`).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from service.videoclip.pooling import Pooling
from service.videoclip.prompts import apply
from training.distributed import gather_with_gradient
from training.ensemble import clip_weight_of
from training.errors import Refusal
from training.losses import distillation_loss, pair_loss, similarity
from training.models.network import VideoCLIP
from training.recipe import Batch, Encode, Recipe, device_of

POOLING: Pooling = "normalize_then_mean"


@dataclass(frozen=True, kw_only=True)
class FitCLIPSettings:
    """What the paper adds to CLIP. The defaults are the released code's.

    temperature: σ, fixed. 0.015 is what the released configs compose to; the paper has 0.05.
    distillation_weight: λ of eq. 5, the share of the unlabelled loss; the other has 1 - λ.
    distillation_factor: "code" multiplies that loss by (1/σ)², "paper" does not. The published
    figures (UCF-101 73.3, MSR-VTT R@1 33.8) are of a model whose released name gives λ and a fixed
    temperature, not which of the two temperatures.
    texts: what the labelled clips are matched with: their captions, as published, or the sentences
    of their classes, where two clips of one class count as negatives of each other.
    unlabelled_texts: what student and teacher score the unlabelled clips against: those clips' own
    captions, the run's classes in its templates, or `prompts`, fixed sentences.
    student_share: α of the ensemble, the *student's* share: 0.4 is our λ = 0.6.
    """

    temperature: float = 0.015
    distillation_weight: float = 1e-4
    distillation_factor: Literal["code", "paper"] = "code"
    texts: Literal["captions", "classes"] = "captions"
    unlabelled_texts: Literal["captions", "classes", "prompts"] = "captions"
    prompts: tuple[str, ...] = ()
    student_share: float = 0.4

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise Refusal(f"temperature = {self.temperature}: above 0")
        if not 0.0 <= self.distillation_weight <= 1.0:
            raise Refusal(f"distillation_weight = {self.distillation_weight}: within 0 and 1")
        if (self.unlabelled_texts == "prompts") != bool(self.prompts):
            raise Refusal('prompts: needed by unlabelled_texts = "prompts", and by nothing else')
        clip_weight_of(self.student_share)

    @property
    def pooling(self) -> Pooling:
        """How the published model makes one vector of its frames."""
        return POOLING

    @property
    def clip_weight(self) -> float:
        """The published ensemble as λ, CLIP's share."""
        return clip_weight_of(self.student_share)


def architecture(settings: FitCLIPSettings) -> dict[str, Any]:  # noqa: ARG001
    """Frames on their own, and nothing that CLIP lacks."""
    return {"temporal": "none", "temporal_head": "none", "prompts": None}


class FitCLIP(Recipe):
    """InfoNCE on a labelled batch, distillation from CLIP on an unlabelled one."""

    class_token_ids: Tensor | None
    prompt_token_ids: Tensor | None

    def __init__(
        self,
        network: VideoCLIP,
        *,
        settings: FitCLIPSettings,
        original: Mapping[str, Tensor],
        class_token_ids: Tensor | None = None,
        templates: int = 1,
        prompt_token_ids: Tensor | None = None,
    ) -> None:
        """Train `network` in place, taught by a copy of it with the weights `original`.

        class_token_ids: int64 (C * templates, L), the sentences of the first class, then of the
        second; needed where the settings speak of classes. prompt_token_ids: int64 (P, L), theirs.
        """
        super().__init__()
        self.network = network
        self.settings = settings
        self.templates = templates
        self.needs_unlabelled = settings.distillation_weight > 0.0
        self.needs_captions = settings.texts == "captions"
        self.teacher = copy.deepcopy(network)
        self.teacher.load_state_dict(original, strict=True)
        self.teacher.eval().requires_grad_(False)
        device = device_of(network)
        for name, ids in (("class", class_token_ids), ("prompt", prompt_token_ids)):
            placed = None if ids is None else ids.to(device)
            self.register_buffer(f"{name}_token_ids", placed, persistent=False)

    def trained(self) -> dict[str, float]:
        """Both towers; not the logit scale, whose place the fixed temperature takes."""
        return {
            f"network.{name}": 1.0
            for name, _ in self.network.named_parameters()
            if name != "logit_scale"
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 5; "labelled" and "distillation" are its parts, before they are weighted."""
        settings = self.settings
        parts = {}
        loss: Tensor | float = 0.0
        if settings.distillation_weight < 1.0:
            parts["labelled"] = self._labelled(batch)
            loss = loss + (1.0 - settings.distillation_weight) * parts["labelled"]
        if settings.distillation_weight > 0.0:
            if batch.unlabelled is None:
                raise Refusal("fitclip: data.unlabelled: needed unless distillation_weight is 0")
            parts["distillation"] = self._distillation(batch.unlabelled)
            factor = settings.temperature**-2 if settings.distillation_factor == "code" else 1.0
            loss = loss + settings.distillation_weight * factor * parts["distillation"]
        assert isinstance(loss, Tensor)  # the two weights are not both 0
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def validation_loss(self, batch: Batch) -> Tensor:
        """The labelled loss alone, by which the published student is chosen.

        Negatives are the batch's other clips, over all ranks: only batches of one size compare.
        """
        return self._labelled(batch)

    def _labelled(self, batch: Batch) -> Tensor:
        """Eqs. 1 and 2 over the clips of all ranks that have a text."""
        network = self.network
        if self.settings.texts == "classes":
            if batch.labels is None:
                raise Refusal("fitclip: the labelled set has no classes; set texts to 'captions'")
            texts = self._class_texts(network, batch.labels)
            known = torch.ones_like(batch.labels, dtype=torch.bool)
        else:
            texts, known = _caption_texts(network, batch)
        videos = gather_with_gradient(_videos(network, batch.frames))
        texts = gather_with_gradient(texts)
        known = gather_with_gradient(known.float()) > 0.5
        scores = similarity(videos[known], texts[known], temperature=self.settings.temperature)
        # A batch without texts teaches nothing, and must not be a NaN.
        return pair_loss(scores) if len(scores) else videos.sum() * 0.0

    def _distillation(self, batch: Batch) -> Tensor:
        """Eqs. 3 and 4 over the clips of all ranks."""
        with torch.no_grad():
            target = self._scores(self.teacher, batch)
        scores = self._scores(self.network, batch)
        return distillation_loss(scores, target) if scores.numel() else scores.sum() * 0.0

    def _scores(self, network: VideoCLIP, batch: Batch) -> Tensor:
        """Scores (N, M) of the unlabelled clips of all ranks and the texts they are shown with."""
        kind = self.settings.unlabelled_texts
        videos = gather_with_gradient(_videos(network, batch.frames))
        if kind == "captions":
            texts, known = _caption_texts(network, batch)
            # Their clip is not used as a label, but a filler row is no text at all.
            texts = gather_with_gradient(texts)[gather_with_gradient(known.float()) > 0.5]
        elif kind == "classes":
            assert self.class_token_ids is not None
            every = torch.arange(
                len(self.class_token_ids) // self.templates, device=batch.frames.device
            )
            texts = self._class_texts(network, every)
        else:
            assert self.prompt_token_ids is not None
            texts = _texts(network, self.prompt_token_ids)
        return similarity(videos, texts, temperature=self.settings.temperature)

    def _class_texts(self, network: VideoCLIP, classes: Tensor) -> Tensor:
        """Unit vectors (n, D) of classes, each the mean over its templates. classes: int64 (n,)."""
        assert self.class_token_ids is not None
        length = self.class_token_ids.shape[1]
        token_ids = self.class_token_ids.view(-1, self.templates, length)[classes]
        texts = _texts(network, token_ids.flatten(0, 1))
        return F.normalize(texts.view(len(classes), self.templates, -1).mean(dim=1), dim=-1)


def recipe(
    network: VideoCLIP,
    *,
    settings: FitCLIPSettings,
    classes: tuple[str, ...],
    encode: Encode,
    templates: tuple[str, ...],
    original: Mapping[str, Tensor],
    seed: int,  # noqa: ARG001 (nothing is drawn here)
) -> FitCLIP:
    """See `training.recipe.RecipeModule`. Raises Refusal where classes are needed and missing."""
    class_token_ids = None
    if "classes" in (settings.texts, settings.unlabelled_texts):
        if not classes:
            raise Refusal("fitclip: texts and unlabelled_texts: the training set has no classes")
        class_token_ids = encode([apply(t, name) for name in classes for t in templates])
    return FitCLIP(
        network,
        settings=settings,
        original=original,
        class_token_ids=class_token_ids,
        templates=len(templates),
        prompt_token_ids=encode(list(settings.prompts)) if settings.prompts else None,
    )


def _videos(network: VideoCLIP, frames: Tensor) -> Tensor:
    """Means of unit frame vectors, not normalised again: float32 (B, D)."""
    return F.normalize(network.encode_frames(frames).float(), dim=-1).mean(dim=1)


def _texts(network: VideoCLIP, token_ids: Tensor) -> Tensor:
    """Unit vectors, float32 (n, D)."""
    return F.normalize(network.encode_text(token_ids).float(), dim=-1)


def _caption_texts(network: VideoCLIP, batch: Batch) -> tuple[Tensor, Tensor]:
    """Unit vectors (B, D) of a batch's captions, and bool (B,): which are not filler."""
    if batch.captions is None:
        raise Refusal("fitclip: a set has no captions; set texts or unlabelled_texts to 'classes'")
    known = batch.captioned
    if known is None:
        known = torch.ones(len(batch.captions), dtype=torch.bool, device=batch.captions.device)
    return _texts(network, batch.captions), known
