"""`python -m tests.benchmarks.bench_export [MODEL ...]`: exported graphs against the network.

Video encoder, one clip of 8 frames and four, for the demo model's size and ViT-B/32 (or the models
of open_clip that are named): the network in torch, TorchScript, and ONNX Runtime, taking turns.
Best wall time and best processor time, which neighbours disturb less. Also what a change of λ
costs: interpolate the weights, make a session. VTAG_BENCH_THREADS: all cores without it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.videoclip.interpolation import interpolate
from tests.benchmarks.bench_training import SMALL
from training.export import export
from training.graphs import load_graph
from training.models.network import build

FRAMES = 8
ROUNDS = 7


def main() -> None:
    """Print a block for each model."""
    threads = int(os.environ.get("VTAG_BENCH_THREADS", os.cpu_count() or 1))
    torch.set_num_threads(threads)
    print(f"{threads} threads, {FRAMES} frames a clip; best of {ROUNDS} rounds")
    models: list[str | Mapping[str, Any]] = list(sys.argv[1:])
    for model in models or [SMALL, "ViT-B-32-quickgelu"]:
        with tempfile.TemporaryDirectory(prefix="vtag-bench-") as folder:
            measure(model, Path(folder), threads=threads)


def measure(model: str | Mapping[str, Any], folder: Path, *, threads: int) -> None:
    """Export one model and time its video encoder."""
    network = build(model).eval()
    begin = time.perf_counter()
    export(network, folder, frames_per_clip=FRAMES)
    print(f"{model if isinstance(model, str) else 'demo size'}: export {seconds(begin):.1f} s")
    arrays = {n: t.numpy() for n, t in network.state_dict().items()}
    video = folder / "video_encoder.onnx"
    other = {n: a * 1.01 for n, a in arrays.items()}
    begin = time.perf_counter()
    mixed = interpolate(arrays, other, clip_weight=0.5)
    print(f"  change of λ: interpolate {1000 * seconds(begin):.1f} ms", end=", ")
    begin = time.perf_counter()
    load_graph(video, mixed, threads=threads)
    print(f"session {1000 * seconds(begin):.1f} ms")
    onnx = load_graph(video, arrays, threads=threads)
    script = load_graph(folder / "video_encoder.ts", arrays)
    size = network.image_size
    for clips in (1, 4):
        frames = np.random.default_rng(0).standard_normal(
            (clips, FRAMES, 3, size, size), dtype=np.float32
        )

        def eager(value: np.ndarray[Any, np.dtype[np.float32]] = frames) -> object:
            with torch.no_grad():
                return network.encode_frames(torch.from_numpy(value))

        forms: dict[str, Callable[[], object]] = {
            "torch": eager,
            "torchscript": lambda value=frames: script(value),  # type: ignore[misc]
            "onnxruntime": lambda value=frames: onnx(value),  # type: ignore[misc]
        }
        best = dict.fromkeys(forms, float("inf"))
        best_cpu = dict.fromkeys(forms, float("inf"))
        for _ in range(ROUNDS):
            for name, run in forms.items():
                begin, cpu = time.perf_counter(), time.process_time()
                run()
                best_cpu[name] = min(best_cpu[name], time.process_time() - cpu)
                best[name] = min(best[name], seconds(begin))
        text = ", ".join(
            f"{name} {1000 * best[name]:.1f} ms, CPU {1000 * best_cpu[name]:.1f} ms "
            f"({best_cpu['torch'] / best_cpu[name]:.2f}x)"
            for name in forms
        )
        print(f"  {clips} clips: {text}")


def seconds(since: float) -> float:
    """Since a reading of the clock."""
    return time.perf_counter() - since


if __name__ == "__main__":
    main()
