"""Two processes that train together, as `torchrun` would start them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

RANKS = 2


def run_on_two_ranks(work: Callable[..., None], folder: Path, *args: object) -> None:
    """Call `work(rank, folder, *args)` in two processes of one gloo group.

    Raises:
        ProcessRaisedException: what one of them raised.
    """
    spawn(_rank, args=(work, folder, args), nprocs=RANKS)  # type: ignore[no-untyped-call]


def _rank(rank: int, work: Callable[..., None], folder: Path, args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "meeting"), RANKS)  # type: ignore[attr-defined]
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=120)
    )
    work(rank, folder, *args)
    # A rank that closes its connections while the other one still reads from them ends that one.
    store.set(f"{rank} is done", "")
    store.wait([f"{other} is done" for other in range(RANKS)], timedelta(seconds=120))
    dist.destroy_process_group()
