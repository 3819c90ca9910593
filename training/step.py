"""One step of training, for every recipe: gradients, regularisation, update, average.

Interpolated weight regularisation (Open-VCLIP, eqs. 7-9) adds to the gradient at θ the gradient at
α·CLIP + (1-α)·θ, times C. The second pass runs the recipe's loss *and* its backward pass within one
`torch.func.functional_call`: blocks that are recomputed in the backward pass see the same weights,
and no weights are swapped. That needs one more copy of the trained weights. CLIP's are read from
where the caller has them, at each step: in a run that is the mapped file of its artefact, whose
pages are the kernel's to drop and shared by all processes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from training import distributed
from training.config import ConfigError
from training.flat_weights import FlatWeights
from training.optimizer import AdamW, RunningMean, group_weights
from training.precision import LossScale, Precision, autocast, resolve
from training.recipe import Batch, Recipe
from training.schedule import learning_rate, snapshot_steps
from training.step_config import OptimisationConfig, RegularisationConfig

_PREFIX = "recipe."  # of the recipe's weights inside `_LossAndGradient`


@dataclass(frozen=True)
class StepReport:
    """One step, averaged over all ranks.

    loss: at θ. parts: what the recipe reports beside it. interpolated_loss: at the interpolated
    point; it and alpha are None without one. gradient_norm: before clipping; infinite in fp16 when
    the gradient overflowed, and the weights were left as they are.
    """

    loss: float
    interpolated_loss: float | None
    alpha: float | None
    gradient_norm: float
    learning_rate: float
    parts: dict[str, float]


class Step:
    """The trained weights of a recipe, and what moves them.

    All that is random depends on the seed and the step's number alone, α also not on the rank: a
    resumed training draws what an uninterrupted one would have drawn.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        steps: int,
        optimisation: OptimisationConfig,
        regularisation: RegularisationConfig,
        seed: int,
        original: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Train `recipe`, on the device where it is, in place.

        original: CLIP's weights by the network's names, on any device; they are neither copied nor
        changed, and must stay as they are. None takes a copy of the network's own, as they are now.
        Raises ConfigError when it is needed and lacks a trained weight.
        """
        self.recipe = recipe
        self.steps = steps
        self.optimisation = optimisation
        self.regularisation = regularisation
        self.seed = seed
        self.device = recipe.network.logit_scale.device
        factors = recipe.trained()
        for name, parameter in recipe.named_parameters():
            parameter.requires_grad_(name in factors)
        recipe.network.gradient_checkpointing = optimisation.gradient_checkpointing
        groups = group_weights(
            recipe,
            factors,
            weight_decay=optimisation.weight_decay,
            decay_all=optimisation.decay_all,
        )
        self.weights = FlatWeights(recipe, groups=[group.names for group in groups])
        distributed.copy_from_first(self.weights.vector)
        self.optimizer = AdamW(
            self.weights, groups, betas=optimisation.betas, eps=optimisation.epsilon
        )
        self.scale = LossScale(resolve(self.device, optimisation.precision))
        self.mean = RunningMean()
        self.snapshots = frozenset(
            snapshot_steps(
                steps,
                start_share=regularisation.snapshot_start_share,
                count=regularisation.snapshots,
            )
            if regularisation.snapshots
            else ()
        )
        self._pass = _LossAndGradient(recipe, optimisation.precision)
        self._holds_original = original is None and regularisation.looks_at_clip
        self._original: dict[str, Tensor] = {}
        if regularisation.looks_at_clip:
            self._original = self._of_clip(original)
        if regularisation.interpolation_coefficient:
            generator = np.random.default_rng([seed, 1])
            self._alphas = generator.uniform(0.0, regularisation.interpolation_max, steps)
            self._mixed = torch.zeros_like(self.weights.vector)
            gradients = self.weights.views(self.weights.gradient)
            self._mixed_weights = {}
            for name, view in self.weights.views(self._mixed).items():
                leaf = view.detach().requires_grad_()
                # Both backward passes add into the same gradient, so their sum costs no memory.
                leaf.grad = gradients[name]
                self._mixed_weights[_PREFIX + name] = leaf

    def alpha(self, step: int) -> float | None:
        """CLIP's share in step's interpolated point, uniform in (0, R); None without one."""
        if not self.regularisation.interpolation_coefficient:
            return None
        return float(self._alphas[step])

    def gradient(
        self, batch: Batch, *, alpha: float | None, share: float = 1.0
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Add `share` times a batch's gradient, and its regularisation, to `weights.gradient`.

        That is dL/dθ, and C times the gradient at α·CLIP + (1-α)·θ: the factor (1-α) of the chain
        rule cancels with β = C/(1-α) (eq. 9). Returns the recipe's scalars at θ, and the loss at
        the interpolated point.
        """
        if alpha is not None:
            self._mix(alpha)
        return self._gradient(batch, share=share, mixed=alpha is not None)

    def _mix(self, alpha: float) -> None:
        """Make the interpolated point of θ as it is now; in place, so CLIP needs no vector."""
        self.weights.fill(self._mixed, self._original)
        torch.lerp(self.weights.vector, self._mixed, alpha, out=self._mixed)

    def _gradient(
        self, batch: Batch, *, share: float, mixed: bool
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As `gradient`, at the interpolated point that was made last."""
        factor = share * self.scale.factor
        mixed_loss = None
        if mixed:
            strength = factor * self.regularisation.interpolation_coefficient
            mixed_loss = torch.func.functional_call(
                self._pass, self._mixed_weights, (replace(batch, interpolated=True), strength)
            )["loss"]
        return self._pass(batch, factor), mixed_loss

    def __call__(self, step: int, batch: Batch) -> StepReport:
        """Update the weights with step's batch (steps count from 0), this rank's share of it.

        Raises FloatingPointError when the training diverges.
        """
        config = self.optimisation
        alpha = self.alpha(step)
        if alpha is not None:
            self._mix(alpha)
        seen = [
            self._gradient(part, share=1.0 / config.accumulate, mixed=alpha is not None)
            for part in self._parts(step, batch)
        ]
        gradient = distributed.average(self.weights.gradient)
        if self.scale.factor != 1.0:
            gradient.div_(self.scale.factor)
        parts = _means(parts for parts, _ in seen)
        if self.regularisation.l2_to_clip:
            parts["l2_to_clip"] = self._pull_to_clip()
        rate = learning_rate(step / self.steps, **config.schedule_arguments())
        norm = self._update(rate)
        if step + 1 in self.snapshots:
            self.mean.add(self.weights.vector)
        mixed = [{"loss": loss} for _, loss in seen if loss is not None]
        return StepReport(
            loss=parts.pop("loss"),
            interpolated_loss=_means(mixed)["loss"] if mixed else None,
            alpha=alpha,
            gradient_norm=norm,
            learning_rate=rate,
            parts=parts,
        )

    def gradients(self) -> dict[str, Tensor]:
        """What was added up since the last update, by the recipe's names; views, no copies."""
        return self.weights.views(self.weights.gradient)

    def state_bytes(self) -> dict[str, int]:
        """What is held for the trained weights, in bytes, by what it is; the mean comes late."""
        vector = self.weights.vector
        one = vector.numel() * vector.element_size()
        held = {"weights": one, "gradient": one, "moments": 2 * one}
        if self._holds_original:
            held["CLIP's weights"] = one
        if self.regularisation.interpolation_coefficient:
            held["interpolated weights"] = one
        if self.snapshots:
            held["mean"] = one
        return held

    def network_state(self, vector: Tensor) -> dict[str, Tensor]:
        """The network's state dict, copied, with the trained weights taken from a flat vector."""
        state = {n: t.detach().clone() for n, t in self.recipe.network.state_dict().items()}
        for name, view in self.weights.views(vector).items():
            inner = name.removeprefix("network.")
            if inner in state:
                state[inner] = view.detach().clone()
        return state

    def _parts(self, step: int, batch: Batch) -> Iterable[Batch]:
        rows, count = len(batch.frames), self.optimisation.accumulate
        for i in range(count):
            # By the part's place in the whole batch: two ranks draw what one draws for two parts.
            rng = np.random.default_rng([self.seed, 2, step, distributed.rank() * count + i])
            part = batch.part(slice(i * rows // count, (i + 1) * rows // count))
            yield self.recipe.prepare(part, rng)

    def _pull_to_clip(self) -> float:
        """Add the gradient of c/2·‖θ - CLIP‖² (L2-SP, Li et al., ICML 2018); returns the term."""
        c = self.regularisation.l2_to_clip
        gradients = self.gradients()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for name, weight in self.weights.views(self.weights.vector).items():
            difference = weight - self._original[name].to(weight)
            gradients[name].add_(difference, alpha=c)
            total += difference.square().sum()
        return 0.5 * c * float(total)

    def _update(self, rate: float) -> float:
        try:
            norm = self.optimizer.step(
                learning_rate=rate, clip_norm=self.optimisation.clip_norm or None
            )
        except FloatingPointError:
            if not self.scale.after_overflow():
                raise
            self.weights.gradient.zero_()
            return math.inf
        self.scale.after_update()
        return norm

    def _of_clip(self, original: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """CLIP's weights by the recipe's names: the caller's tensors, or copies of the recipe's."""
        if original is None:
            return {n: v.clone() for n, v in self.weights.views(self.weights.vector).items()}
        named = {f"network.{n}": t for n, t in original.items()}
        try:
            self.weights.require(named)
            return {name: named[name].detach() for name in self.weights.shapes}
        except ValueError as error:
            raise ConfigError(
                f"regularisation: pulls towards CLIP, which lacks trained weights: {error}"
            ) from error


class _LossAndGradient(nn.Module):
    """A recipe's loss and its backward pass as one call."""

    def __init__(self, recipe: Recipe, precision: Precision) -> None:
        super().__init__()
        self.recipe = recipe
        self.precision = precision

    def forward(self, batch: Batch, factor: float) -> dict[str, Tensor]:
        """Add `factor` times the gradient to the weights'; returns the recipe's scalars."""
        with autocast(batch.frames.device, self.precision):
            parts: dict[str, Tensor] = self.recipe(batch)
        (factor * parts["loss"]).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in parts.items()}


def _means(reports: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over a step's parts and over all ranks."""
    rows: Sequence[Mapping[str, Tensor]] = list(reports)
    names = list(rows[0])
    table = torch.stack([torch.stack([row[name].float() for name in names]) for row in rows])
    values = distributed.average(table.mean(dim=0)).tolist()
    return dict(zip(names, values, strict=True))
