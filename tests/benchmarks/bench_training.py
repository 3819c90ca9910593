"""`python -m tests.benchmarks.bench_training`: what interpolated weight regularisation costs.

Plain fine-tuning, ours, and the authors' way (load the interpolated weights, run, load the old ones
back), at the demo model's size, in fp32 and bf16. The forms take turns; a table gives the best and
the middle of several rounds in wall time, and the best processor time.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from training.losses import classification_loss, video_logits
from training.models.network import build
from training.precision import Precision
from training.recipes.open_vclip import OpenVCLIP, OpenVCLIPSettings

ROUNDS = 7
BATCH = 32
ARCHITECTURE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 300, "width": 96, "heads": 4, "layers": 2},
    "quick_gelu": True,
}
SETTINGS = OpenVCLIPSettings(steps=1, batch_size=BATCH, flip=False)


def main() -> None:
    """Print a table. The one argument is the number of threads (all cores)."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (BATCH, 8, 40, 40, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 48, BATCH))
    classifier = torch.nn.functional.normalize(torch.randn(48, 64), dim=-1)
    steps: dict[str, Callable[[], object]] = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        plain = replace(SETTINGS, precision=precision, interpolation_coefficient=0.0)
        ours = replace(SETTINGS, precision=precision)
        for name, settings in (("plain", plain), ("ours", ours)):
            recipe = OpenVCLIP(build(ARCHITECTURE), classifier=classifier, settings=settings)
            steps[f"{precision} {name}"] = lambda r=recipe: r.step(frames, labels, progress=0.5)  # type: ignore[misc]
        steps[f"{precision} swapping twice"] = swapping(frames, labels, classifier, settings=plain)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"batch {BATCH} x 8 frames of 40 pixels, {threads} threads; seconds per step")
    print(f"{'':<22}{'best':>8}{'middle':>8}{'best CPU':>10}")
    for name, values in times.items():
        walls = sorted(wall for wall, _ in values)
        cpu = min(cpu for _, cpu in values)
        print(f"{name:<22}{walls[0]:>8.3f}{walls[ROUNDS // 2]:>8.3f}{cpu:>10.3f}")


def swapping(
    frames: torch.Tensor,
    labels: torch.Tensor,
    classifier: torch.Tensor,
    *,
    settings: OpenVCLIPSettings,
) -> Callable[[], object]:
    """One step as Open-VCLIP's released code does it, with the same network and optimiser."""
    network = build(ARCHITECTURE)
    original = {n: t.clone() for n, t in network.state_dict().items()}
    recipe = OpenVCLIP(network, classifier=classifier, settings=settings)

    def step() -> None:
        pixels = recipe.pixels(frames)
        kept = {n: t.clone() for n, t in network.state_dict().items()}
        network.load_state_dict({n: 0.3 * original[n] + 0.7 * kept[n] for n in kept})
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
            out = network(pixels)
        logits = video_logits(out.float(), classifier, logit_scale=network.logit_scale)
        (0.5 * classification_loss(logits, labels)).backward()  # type: ignore[no-untyped-call]
        saved = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        network.load_state_dict(kept)
        recipe.weights.gradient.zero_()
        recipe.gradient(pixels, labels, alpha=None)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                parameter.grad += saved[name]
        recipe.optimizer.step(learning_rate=1e-6, clip_norm=1.0)

    return step


if __name__ == "__main__":
    main()
