"""What a paper adds to the training loop: which weights are trained, and by which loss."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from service.videoclip.pooling import Pooling
from training.models.network import VideoCLIP

Encode = Callable[[list[str]], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one rank sees in one step, on the device.

    frames: float32 (B, T, 3, S, S), normalised. labels: int64 (B,), positions in the classes; None
    for a set without. soft_labels: float32 (B, C) in their place, after mixing. captions: int64
    (B, L) token ids of each clip's text, cut to the longest; None for a set without. captioned:
    bool (B,), False where a clip has none and its row is filler. unlabelled: a batch of the second
    source, for recipes that have one. interpolated: whether this is the pass at interpolated
    weights; the loop says so.
    """

    frames: Tensor
    labels: Tensor | None = None
    soft_labels: Tensor | None = None
    captions: Tensor | None = None
    captioned: Tensor | None = None
    unlabelled: "Batch | None" = None
    interpolated: bool = False

    def part(self, rows: slice) -> "Batch":
        """The same rows of everything; views, no copies."""
        cut: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                cut[each.name] = value[rows]
            elif isinstance(value, Batch):
                cut[each.name] = value.part(rows)
        return replace(self, **cut)


class Recipe(nn.Module):
    """One paper's training objective.

    The loop may run it at weights that are not its own (`torch.func.functional_call`), so `forward`
    reads every trained weight through `self`. It runs under autocast: what must not be rounded,
    logits and losses, it computes with autocast off, as `training.losses` does. It draws no random
    numbers; what is random happens in `prepare`.
    """

    network: VideoCLIP
    #: What the configuration must name for this recipe: data.captions, data.unlabelled.
    needs_captions = False
    needs_unlabelled = False
    #: How many clips of each class `begin` wants to see.
    examples_per_class = 0

    @abstractmethod
    def trained(self) -> Mapping[str, float]:
        """Names of this module's trained parameters, each with its factor of the learning rate."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars: "loss", which is minimised, and its parts, which are logged.

        A mean over the rank's rows: the loop averages over ranks and over parts of a batch.
        """

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:  # noqa: ARG002
        """Change a batch before a step, such as by mixing clips. Both passes of a step see it."""
        return batch

    def begin(self, examples: Iterable[Batch]) -> None:
        """Look at `examples_per_class` clips of each class before the first step.

        Every rank sees the same ones. Called for a resumed training as well, so what is made of
        them must depend on nothing else. Not called when the recipe wants none.
        """

    def keep(self, folder: Path) -> None:
        """Write what the evaluation of the run needs beside its weights; called on rank 0."""

    def validation_loss(self, batch: Batch) -> Tensor:
        """What is lowest for the best weights, where the configuration validates; a scalar."""
        return self(batch)["loss"]  # type: ignore[no-any-return]


class RecipeModule(Protocol):
    """What a module of `training.recipes` offers the loop.

    It may also have `require_free_text(settings)`, which raises a Refusal when such a model cannot
    be published. Its settings may have `clip_weight`, the paper's own λ, to publish at where no
    rule chooses one.
    """

    #: How frame embeddings become one vector, in training as in serving; where that depends on the
    #: settings, these have an attribute `pooling`, which counts.
    POOLING: Pooling

    def architecture(self, settings: Any) -> dict[str, Any]:
        """Keys of `training.models.network.describe`'s dict that the recipe sets.

        They replace those of the model that the run starts from, for example
        ``{"temporal": "none", "temporal_head": "t-trans"}``.
        """

    def recipe(
        self,
        network: VideoCLIP,
        *,
        settings: Any,
        classes: tuple[str, ...],
        encode: Encode,
        templates: tuple[str, ...],
        original: Mapping[str, Tensor],
        seed: int,
    ) -> Recipe:
        """Make the recipe for a network, on the network's device.

        classes: of the training list, in words; a label is a position here. encode: texts -> int64
        (n, L) token ids, on the CPU. templates: with one ``{}`` each. original: CLIP's own weights,
        a state dict of a network without additions. Raises a Refusal for what does not fit.
        """


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(module.parameters()).device
