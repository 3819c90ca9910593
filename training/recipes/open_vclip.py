"""Open-VCLIP (Weng et al., ICML 2023): fine-tune CLIP's visual tower on video, remember CLIP.

Interpolated weight regularisation adds to the gradient at θ the gradient at a random point between
θ and CLIP (eqs. 7-9); stochastic weight averaging takes the mean along the way; and what is served
lies between that mean and CLIP (eq. 10; `training.interpolate`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.flat_weights import FlatWeights
from training.losses import classification_loss, video_logits
from training.models.network import VideoCLIP
from training.optimizer import (
    FLOOR_SHARE,
    PEAK_LEARNING_RATE,
    WARMUP_SHARE,
    AdamW,
    RunningMean,
    learning_rate,
    snapshot_steps,
)
from training.precision import Precision, autocast

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class OpenVCLIPSettings:
    """The recipe. The defaults are the released code's; `steps` stands for its 22 epochs.

    interpolation_coefficient: C, the weight of the gradient at the interpolated point; 0 is plain
    fine-tuning. interpolation_max: R, the largest share of CLIP in that point. snapshots: how many
    points of the way are averaged; 0 for no averaging.
    """

    steps: int
    batch_size: int = 64
    peak_learning_rate: float = PEAK_LEARNING_RATE
    floor_share: float = FLOOR_SHARE
    warmup_share: float = WARMUP_SHARE
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    interpolation_coefficient: float = 0.5
    interpolation_max: float = 0.6
    snapshot_start_share: float = 2 / 22
    snapshots: int = 21
    flip: bool = True
    precision: Precision = "fp32"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    seed: int = 0


@dataclass(frozen=True)
class StepReport:
    """One step: the losses at θ and at the interpolated point (None when there is none)."""

    loss: float
    interpolated_loss: float | None
    alpha: float | None
    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True)
class FineTuned:
    """State dicts after the last step and averaged along the way (None without averaging)."""

    last: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    reports: tuple[StepReport, ...]


class OpenVCLIP:
    """The step. Memory beside plain fine-tuning: CLIP's trained weights, and one copy of them."""

    def __init__(
        self,
        network: VideoCLIP,
        *,
        classifier: Tensor,
        settings: OpenVCLIPSettings,
        original: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Fine-tune `network` in place against a fixed text classifier.

        classifier: float (C, D), unit rows. original: CLIP's weights, a state dict; None takes the
        network's own, as they are now.
        """
        self.network = network
        self.settings = settings
        device = network.logit_scale.device
        self.classifier = classifier.detach().to(device)
        # The text tower stays frozen; the logit scale is trained, unclamped.
        trained = [
            n
            for n, _ in network.named_parameters()
            if n.startswith("visual.") or n == "logit_scale"
        ]
        network.requires_grad_(False)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in set(trained))
        self.weights = FlatWeights(network, names=trained)
        self.optimizer = AdamW(self.weights, weight_decay=settings.weight_decay)
        self.mean = RunningMean()
        self._alpha = np.random.default_rng([settings.seed, 1])
        self._flips = np.random.default_rng([settings.seed, 2])
        shape = (1, 1, 3, 1, 1)
        std = torch.tensor(settings.std, device=device).view(shape)
        self._pixel_scale = 1.0 / (255.0 * std)
        self._pixel_shift = -torch.tensor(settings.mean, device=device).view(shape) / std
        self._regularised = settings.interpolation_coefficient > 0.0
        if self._regularised:
            own = dict(network.named_parameters()) if original is None else original
            self._original = self.weights.pack(own)
            self._mixed = torch.empty_like(self.weights.vector)
            gradients = self.weights.views(self.weights.gradient)
            self._mixed_weights = {
                name: view.detach().requires_grad_()
                for name, view in self.weights.views(self._mixed).items()
            }
            # Both backward passes add into the same gradient, so their sum costs no memory.
            for name, leaf in self._mixed_weights.items():
                leaf.grad = gradients[name]

    def draw_alpha(self) -> float | None:
        """CLIP's share in the interpolated point, uniform in (0, R); None in plain fine-tuning."""
        if not self._regularised:
            return None
        return float(self._alpha.uniform(0.0, self.settings.interpolation_max))

    def pixels(self, frames: Tensor) -> Tensor:
        """Normalise a batch, and mirror half of its clips if the settings say so.

        frames: uint8 (B, T, S, S, 3). Returns float32 (B, T, 3, S, S).
        """
        x = frames.to(self._pixel_scale.device).permute(0, 1, 4, 2, 3).float()
        x = x.mul_(self._pixel_scale).add_(self._pixel_shift)
        if self.settings.flip:
            mirrored = torch.from_numpy(self._flips.random(len(x)) < 0.5).to(x.device)
            x[mirrored] = x[mirrored].flip(-1)
        return x

    def gradient(
        self, pixels: Tensor, labels: Tensor, *, alpha: float | None
    ) -> tuple[Tensor, Tensor | None]:
        """Add dL/dθ, and C times the gradient at α·CLIP + (1-α)·θ, to `weights.gradient`.

        pixels: float (B, T, 3, S, S); labels: int64 (B,). Returns both losses. The factor (1-α) of
        the chain rule cancels with β = C/(1-α) (eq. 9).
        """
        mixed_loss = None
        if alpha is not None:
            torch.lerp(self.weights.vector, self._original, alpha, out=self._mixed)

            def mixed_network(x: Tensor) -> Tensor:
                out: Tensor = torch.func.functional_call(self.network, self._mixed_weights, (x,))
                return out

            mixed_loss = self._loss(
                mixed_network, pixels, labels, logit_scale=self._mixed_weights["logit_scale"]
            )
            (self.settings.interpolation_coefficient * mixed_loss).backward()  # type: ignore[no-untyped-call]
            mixed_loss = mixed_loss.detach()
        loss = self._loss(self.network, pixels, labels, logit_scale=self.network.logit_scale)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), mixed_loss

    def step(self, frames: Tensor, labels: Tensor, *, progress: float) -> StepReport:
        """One update. frames: uint8 (B, T, S, S, 3); labels: int64 (B,); progress: 0 to 1."""
        settings = self.settings
        alpha = self.draw_alpha()
        loss, mixed_loss = self.gradient(self.pixels(frames), labels, alpha=alpha)
        rate = learning_rate(
            progress,
            peak=settings.peak_learning_rate,
            floor_share=settings.floor_share,
            warmup_share=settings.warmup_share,
        )
        norm = self.optimizer.step(learning_rate=rate, clip_norm=settings.clip_norm)
        return StepReport(
            loss=float(loss),
            interpolated_loss=None if mixed_loss is None else float(mixed_loss),
            alpha=alpha,
            gradient_norm=norm,
            learning_rate=rate,
        )

    def state(self, vector: Tensor) -> dict[str, Tensor]:
        """A whole state dict, detached, with the trained weights taken from a flat vector."""
        state = {n: t.detach().clone() for n, t in self.network.state_dict().items()}
        for name, view in self.weights.views(vector).items():
            state[name] = view.detach().clone()
        return state

    def _loss(
        self,
        network: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        *,
        logit_scale: Tensor,
    ) -> Tensor:
        with autocast(pixels.device, self.settings.precision):
            embeddings = network(pixels)
        logits = video_logits(embeddings.float(), self.classifier, logit_scale=logit_scale)
        return classification_loss(logits, labels)


def fine_tune(
    network: VideoCLIP,
    batches: Iterable[Batch],
    *,
    classifier: Tensor,
    settings: OpenVCLIPSettings,
    original: Mapping[str, Tensor] | None = None,
    on_step: Callable[[int, StepReport], None] | None = None,
) -> FineTuned:
    """Run the recipe over `settings.steps` batches. The network ends at the last step's weights.

    batches: pairs of uint8 (B, T, S, S, 3) and int64 (B,), at least `steps` of them; for arrays in
    memory, `array_batches`. classifier: float (C, D), unit rows. Raises ValueError when the batches
    run out, FloatingPointError when the training diverges.
    """
    recipe = OpenVCLIP(network, classifier=classifier, settings=settings, original=original)
    snapshots: set[int] = set()
    if settings.snapshots:
        snapshots = set(
            snapshot_steps(
                settings.steps, start_share=settings.snapshot_start_share, count=settings.snapshots
            )
        )
    reports = []
    source = iter(batches)
    for step in range(settings.steps):
        try:
            frames, labels = next(source)
        except StopIteration:
            raise ValueError(
                f"the batches ran out after {step} of {settings.steps} steps"
            ) from None
        report = recipe.step(frames, labels, progress=step / settings.steps)
        reports.append(report)
        if step + 1 in snapshots:
            recipe.mean.add(recipe.weights.vector)
        if on_step is not None:
            on_step(step, report)
    return FineTuned(
        last=recipe.state(recipe.weights.vector),
        averaged=recipe.state(recipe.mean.mean) if snapshots else None,
        reports=tuple(reports),
    )


def array_batches(
    frames: NDArray[np.uint8], labels: NDArray[np.integer], *, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Endless shuffled batches of clips that lie in memory; every pass sees each clip once.

    frames: uint8 (N, T, S, S, 3); labels: integer (N,). Batches reach over the end of a pass, so
    all have `batch_size` clips. Raises ValueError when the lengths differ or there is nothing.
    """
    if len(frames) != len(labels) or len(frames) == 0:
        raise ValueError(f"{len(frames)} clips with {len(labels)} labels")
    rng = np.random.default_rng([seed, 0])
    waiting: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(len(frames))])
        chosen, waiting = waiting[:batch_size], waiting[batch_size:]
        yield (
            torch.from_numpy(frames[chosen]),
            torch.from_numpy(labels[chosen].astype(np.int64)),
        )
