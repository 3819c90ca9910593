"""CLIP (Radford et al., 2021, section 2.3): align pictures and their captions from nothing.

It makes the CLIP that this project's own world needs; a real project starts from published weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.losses import closeness_loss, contrastive_loss
from training.models.network import VideoCLIP
from training.precision import Precision, autocast
from training.schedule import learning_rate

# Radford et al., table 18 and section 2.5.
BETAS = (0.9, 0.98)
FIRST_TEMPERATURE = 0.07
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class CLIPSettings:
    """The recipe; learning rate and steps are for a network of a million weights.

    apart_cosine: the largest cosine between texts of a group that `train` is to keep apart;
    apart_weight: how much what exceeds it counts.
    """

    steps: int = 2500
    batch_size: int = 256
    peak_learning_rate: float = 1.5e-3
    floor_share: float = 0.01
    warmup_share: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    apart_cosine: float = 1.0
    apart_weight: float = 10.0
    precision: Precision = "fp32"
    seed: int = 0


def train(
    network: VideoCLIP,
    pictures: NDArray[np.uint8],
    captions: Sequence[str],
    *,
    encode: Callable[[list[str]], NDArray[np.int64]],
    normalize: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    prompts: Sequence[str],
    apart: Sequence[Sequence[str]] = (),
    settings: CLIPSettings,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``network`` in place.

    Args:
        network: its weights are the start; ``logit_scale`` is set to CLIP's first temperature.
        pictures: uint8 (N, S, S, 3).
        captions: N texts.
        encode: texts -> int64 (n, L) token ids, cut to the longest.
        normalize: uint8 (B, S, S, 3) -> float32 (B, 3, S, S).
        prompts: templates with one ``{}``; each caption is shown in a random one.
        apart: groups of texts to keep apart, such as one noun with each verb; a step takes one
            group. A single picture shows no direction, so pictures alone leave "moving left" and
            "moving right" on one embedding, which a frozen text tower never mends; CLIP has them
            apart from four hundred million captions, a small world must say so.
        settings: see `CLIPSettings`.
        on_step: called with the step's number, from 0, and its loss.

    Raises:
        ValueError: as many pictures as captions are needed, and at least one batch of them.
        FloatingPointError: the loss is not finite.
    """
    if len(pictures) != len(captions) or len(pictures) < settings.batch_size:
        raise ValueError(
            f"pictures: {len(pictures)} with {len(captions)} captions; a batch is"
            f" {settings.batch_size}"
        )
    device = network.logit_scale.device
    rng = np.random.default_rng(settings.seed)
    with torch.no_grad():
        network.logit_scale.fill_(float(np.log(1 / FIRST_TEMPERATURE)))
    parameters = list(network.parameters())
    # Gains, biases and the temperature are not decayed (section 2.5).
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=BETAS,
        fused=True,
    )
    network.train()
    for step in range(settings.steps):
        chosen = rng.integers(0, len(pictures), settings.batch_size)
        worded = [
            prompts[int(rng.integers(len(prompts)))].replace("{}", captions[int(i)]) for i in chosen
        ]
        pixels = torch.from_numpy(normalize(pictures[chosen])).to(device)
        token_ids = torch.from_numpy(encode(worded)).to(device)
        with autocast(device, settings.precision):
            frame = network.encode_frames(pixels.unsqueeze(1)).squeeze(1)
            text = network.encode_text(token_ids)
        loss: Tensor = contrastive_loss(
            F.normalize(frame.float(), dim=-1),
            F.normalize(text.float(), dim=-1),
            logit_scale=network.logit_scale,
        )
        if settings.apart_cosine < 1.0 and apart:
            group = apart[int(rng.integers(len(apart)))]
            template = prompts[int(rng.integers(len(prompts)))]
            alike = torch.from_numpy(encode([template.replace("{}", each) for each in group]))
            with autocast(device, settings.precision):
                text = network.encode_text(alike.to(device))
            closeness = closeness_loss(
                F.normalize(text.float(), dim=-1), most=settings.apart_cosine
            )
            loss = loss + settings.apart_weight * closeness
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss of step {step} is {value}")
        rate = learning_rate(
            step / settings.steps,
            peak=settings.peak_learning_rate,
            floor_share=settings.floor_share,
            warmup_share=settings.warmup_share,
        )
        for parameter_group in optimizer.param_groups:
            parameter_group["lr"] = rate
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(max=float(np.log(MAX_LOGIT_SCALE)))
        if on_step is not None:
            on_step(step, value)
    network.eval()
