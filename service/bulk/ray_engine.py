"""A bulk load through Ray Data: decode on processors, encode on devices, write as it comes.

Ray reads its variables when it is imported: see `service.bulk.ray_environment`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
import ray.data
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext

from service.bulk.decoder import Decoder
from service.bulk.encoder import Encoder
from service.bulk.plan import Plan
from service.bulk.source import SourceFile
from service.encode.device import Device

_FILES_PER_BLOCK: Final = 8
_MOST_BLOCKS: Final = 20_000
_ROWS_PER_CALL: Final = 8
_STARTS: Final = 3
_CLIPS_PER_RUN: Final = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Workers:
    """How many actors there are, and what each takes.

    Attributes:
        decoders: one core each.
        encoders: one device each.
        device: kind of device that the network runs on.
        threads: cores of an encoder.
    """

    decoders: int
    encoders: int
    device: Device
    threads: int


@contextmanager
def cluster(address: str | None) -> Iterator[Mapping[str, float]]:
    """Join the cluster at `address`, or start one on this machine; yield what it has.

    Raises:
        ConnectionError: there is none.
    """
    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                address=address,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            break
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - half a minute was not enough; it has no class of its own
            ray.shutdown()
            if not left:
                raise ConnectionError(first_line(error)) from None
    # Told of by our own line; what fails is raised.
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def choose_workers(
    resources: Mapping[str, float], *, decoders: int | None, encoders: int | None, device: Device
) -> Workers:
    """Return workers that fill the cluster, but where numbers are given.

    With graphics processors: one encoder each, all cores but theirs decode. Without: half the cores
    decode, the other half are one encoder's.

    Raises:
        ValueError: the cluster has not so many cores or devices; one line.
    """
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device.kind == "cuda":
        encoders = gpus if encoders is None else encoders
        if not 1 <= encoders <= gpus:
            raise ValueError(f"--encoders: {encoders}, the cluster has {gpus} GPUs")
        decoders = cores - encoders if decoders is None else decoders
        threads = 1
    else:
        encoders = 1 if encoders is None else encoders
        decoders = max(1, cores // 2) if decoders is None else decoders
        threads = max(1, (cores - decoders) // max(1, encoders))
    if decoders < 1 or encoders < 1 or decoders + encoders * threads > cores:
        raise ValueError(
            f"--decoders, --encoders: {decoders} and {encoders}, at least 1 each, together at most"
            f" the {cores} cores of the cluster"
        )
    return Workers(decoders, encoders, device, threads)


def rows(
    plan: Plan, files: Sequence[SourceFile], *, workers: Workers
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of `service.bulk.encoder.Encoder` for all files, in any order.

    Ray bounds what is under way by the memory of its object store, starts actors again that die,
    and gives their files to others.
    """
    DataContext.get_current().enable_progress_bars = False
    listed = [
        {"name": file.name, "size": file.size_bytes, "version": file.version} for file in files
    ]
    blocks = min(max(1, -(-len(listed) // _FILES_PER_BLOCK)), _MOST_BLOCKS)
    encoded = (
        ray.data.from_items(listed, override_num_blocks=blocks)
        .map_batches(
            Decoder,
            fn_constructor_args=(plan,),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=workers.decoders),
            num_cpus=1,
        )
        .map_batches(
            Encoder,
            fn_constructor_args=(plan,),
            fn_constructor_kwargs={
                "device": Device(workers.device.kind),
                "threads": workers.threads,
                "clips_per_run": _CLIPS_PER_RUN[workers.device.kind],
            },
            batch_size=_ROWS_PER_CALL,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=workers.encoders),
            num_cpus=workers.threads,
            num_gpus=1 if workers.device.kind == "cuda" else None,
        )
    )
    yield from encoded.iter_rows()


FAILURES: Final = (ray.exceptions.RayError,)


def first_line(error: BaseException) -> str:
    """Return what went wrong, without the pages that Ray makes of it."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else ''}"[:400]
