"""`python -m tests.benchmarks.bench_training`: what interpolated weight regularisation costs.

Three forms of a step, side by side: plain fine-tuning; ours; and the authors' way, which copies the
state dict, loads the interpolated weights, runs, loads the copy, and runs again. Each form is a
process of its own, so that its peak of memory is its own, and the processes take turns, so that a
busy moment of the machine hits all of them. Nothing is asserted: figures are for reading.
"""

import argparse
import copy
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training.models.network import VideoCLIP, build
from training.precision import Precision, autocast
from training.recipe import Batch
from training.recipes.open_vclip import OpenVCLIP
from training.step import Step
from training.step_config import OptimisationConfig, RegularisationConfig

CLASSES = 48
SMALL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 300, "width": 96, "heads": 4, "layers": 2},
    "quick_gelu": True,
}
C, R = 0.5, 0.6
RATE, DECAY = 1e-6, 0.01
FORMS = ("plain", "ours", "swapping twice")


def main() -> None:
    """Print a table: seconds a step and ratio to plain, middle and quartiles; peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="open_clip's name; without it the demo's size")
    parser.add_argument("--batch", type=int, default=8, help="clips (8)")
    parser.add_argument("--frames", type=int, default=8, help="of a clip (8)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each form (7)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="cpu", help="(cpu)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(all cores)")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], {}
    for form in FORMS:
        pipes[form], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(other, form, vars(arguments))))
        processes[-1].start()
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for number in range(arguments.rounds + 1):
        for form, pipe in pipes.items():
            pipe.send(True)
            taken = pipe.recv()
            if number > 0:  # the first step allocates
                seconds[form].append(taken)
    peaks = {}
    for form, pipe in pipes.items():
        pipe.send(False)
        peaks[form] = pipe.recv()
    for process in processes:
        process.join()
    report(arguments, seconds, peaks)


def serve(pipe: Connection, form: str, arguments: dict[str, Any]) -> None:
    """Do a step whenever asked, and send how long it took; at the end, the peak of memory."""
    torch.set_num_threads(arguments["threads"])
    device = torch.device(arguments["device"])
    network = build(arguments["model"] or SMALL).to(device)
    size = network.image_size
    rng = np.random.default_rng(0)
    shape = (arguments["batch"], arguments["frames"], 3, size, size)
    batch = Batch(
        frames=torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(device),
        labels=torch.from_numpy(rng.integers(0, CLASSES, arguments["batch"])).to(device),
    )
    rows = torch.randn(CLASSES, network.embedding_size, generator=torch.Generator().manual_seed(0))
    recipe = OpenVCLIP(network, classifier=torch.nn.functional.normalize(rows, dim=-1))
    make = swapping if form == "swapping twice" else flat
    step = make(recipe, batch, precision=arguments["precision"], regularised=form == "ours")
    while pipe.recv():
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send(time.perf_counter() - begun)
    if device.type == "cuda":
        pipe.send(torch.cuda.max_memory_allocated(device))
    else:
        pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def flat(
    recipe: OpenVCLIP, batch: Batch, *, precision: Precision, regularised: bool
) -> Callable[[], object]:
    """A step of ours, with or without the interpolated pass; CLIP is a mapped file, as in a run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.safetensors"
        save_file(recipe.network.state_dict(), file)
        original = load_file(file)  # its pages stay when the name goes
    step = Step(
        recipe,
        steps=1000,
        optimisation=OptimisationConfig(
            steps=1000, peak_learning_rate=RATE, weight_decay=DECAY, precision=precision
        ),
        regularisation=RegularisationConfig(
            interpolation_coefficient=C if regularised else 0.0, interpolation_max=R
        ),
        seed=0,
        original=original,
    )
    numbers = iter(range(1000))
    return lambda: step(next(numbers), batch)


def swapping(
    recipe: OpenVCLIP,
    batch: Batch,
    *,
    precision: Precision,
    regularised: bool,  # noqa: ARG001 (it always is)
) -> Callable[[], object]:
    """A step as Open-VCLIP's released code does it: all keys are copied, mixed, loaded twice."""
    network: VideoCLIP = recipe.network
    names = set(recipe.trained())
    for name, parameter in recipe.named_parameters():
        parameter.requires_grad_(name in names)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    original = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() != 1], "weight_decay": DECAY},
            {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=RATE,
    )
    rng = np.random.default_rng(0)
    # As torch's own scaler: the factor of fp16 does not change what a step costs.
    scaler = torch.amp.GradScaler(batch.frames.device.type, enabled=precision == "fp16")

    def backward(factor: float) -> None:
        with autocast(batch.frames.device, precision):
            loss = recipe(batch)["loss"]
        scaler.scale(factor * loss).backward()

    def step() -> None:
        alpha = float(rng.uniform(0.0, R))
        kept = copy.deepcopy(network.state_dict())
        network.load_state_dict({n: alpha * original[n] + (1 - alpha) * kept[n] for n in kept})
        optimizer.zero_grad()
        backward(C)
        saved = [p.grad.clone() for p in trained if p.grad is not None]
        network.load_state_dict(kept)
        optimizer.zero_grad()
        backward(1.0)
        for parameter, gradient in zip(trained, saved, strict=True):
            assert parameter.grad is not None
            parameter.grad += gradient
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()

    return step


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[float]], peaks: dict[str, int]
) -> None:
    """One line a form: figures of the same round are divided by each other, not means."""
    print(
        f"{arguments.model or 'the demo size'}, {arguments.batch} clips x {arguments.frames} frames"
        f", {arguments.precision}, {arguments.device}, {arguments.threads} threads, "
        f"{arguments.rounds} rounds"
    )
    print(f"{'':<16}{'s/step':>9}{'quartiles':>17}{'of plain':>10}{'quartiles':>15}{'peak':>11}")
    for form in FORMS:
        ratios = np.array(seconds[form]) / np.array(seconds["plain"])
        low, middle, high = np.percentile(seconds[form], [25, 50, 75])
        least, ratio, most = np.percentile(ratios, [25, 50, 75])
        print(
            f"{form:<16}{middle:>9.3f}{f'{low:.3f}-{high:.3f}':>17}{ratio:>10.2f}"
            f"{f'{least:.2f}-{most:.2f}':>15}{peaks[form] / 2**20:>7.0f} MiB"
        )


if __name__ == "__main__":
    main()
