"""Several processes that train one network: who is who, and what they tell each other.

`torchrun` starts the processes and says in the environment how many there are. Without it there is
one, and everything here does nothing. Losses use `gather_with_gradient`; gradients are averaged by
`training.step`, in one call.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, from 0. Only rank 0 writes."""
    return dist.get_rank() if _joined() else 0


def speaks() -> bool:
    """Whether this process prints results, also before it has joined the others."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _joined() else 1


def device_of_rank() -> torch.device:
    """The graphics card of this process, if the machine has any; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        yield
        return
    device = device_of_rank()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather_with_gradient(x: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks; the gradient flows back to each rank's own.

    x: (B, ...), of the same shape on every rank. Returns (world_size * B, ...). Every rank then
    computes the loss of the whole batch; averaged over ranks, its gradient is that of one process.
    """
    return x if world_size() == 1 else _Gather.apply(x)  # type: ignore[no-untyped-call]


def average(x: Tensor) -> Tensor:
    """Replace x, of the same shape on every rank, by its mean over the ranks. Returns x."""
    if world_size() > 1:
        dist.all_reduce(x)
        x.div_(world_size())
    return x


def copy_from_first(x: Tensor) -> Tensor:
    """Replace x by rank 0's. Returns x."""
    if world_size() > 1:
        dist.broadcast(x, src=0)
    return x


def tell_all(answer: bool) -> bool:
    """Rank 0's answer, on every rank: of what rank 0 alone may see or change."""
    return bool(copy_from_first(torch.tensor([answer], device=device_of_rank())))


def gather_texts(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Every rank's texts, on every rank."""
    found: list[dict[str, str] | None] = [None] * world_size()
    if world_size() == 1:
        return [dict(texts)]
    dist.all_gather_object(found, dict(texts))
    return [each for each in found if each is not None]


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss depends on these rows: what it asks of them is added up.
        # It is summed in place, and may belong to others.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
