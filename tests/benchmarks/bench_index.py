"""`python -m tests.benchmarks.bench_index [--segments N]`: the index beside FAISS and LanceDB.

Loads mixtures of real embeddings (VTAG_TEST_DATA/clip_vitb32) by `PostgresIndex.add_many`, builds
the graph, and searches the ten nearest through `PostgresIndex.search`, at one and at eight clients,
plain and with filters that leave a tenth and a hundredth of the videos. FAISS (HNSW, plain only)
and LanceDB (IVF_HNSW_SQ, refined) have the same vectors and queries, and look at as much as they
need for a recall of 0.97 without filters; engines take turns in rounds, so that neighbours on the
machine disturb all alike. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.benchmarks.index_engines import Engine, FaissEngine, LanceEngine, OurEngine
from tests.benchmarks.vector_set import (
    SEGMENTS_PER_VIDEO,
    Vectors,
    VectorSet,
    least_cosines,
    real_embeddings,
)

TOP_K = 10
LEAST_RECALL = 0.97
FILTERS = {"plain": None, "10 %": "tenth", "1 %": "hundredth"}
ENGINES: dict[str, type[Engine]] = {"vtag": OurEngine, "faiss": FaissEngine, "lancedb": LanceEngine}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=200, help="different ones")
    parser.add_argument("--rounds", type=int, default=5, help="in which all queries are asked")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--folder", type=Path, help="keep the data there, and use what is there")
    parsed = parser.parse_args()
    data = Path(os.environ.get("VTAG_TEST_DATA", "../shared")) / "clip_vitb32"
    vectors = VectorSet(real_embeddings(data), parsed.segments)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
        f" {vectors.segments} segments of {vectors.real.shape[1]} dimensions,"
        f" {vectors.videos} videos, {len(vectors.real)} real embeddings",
        flush=True,
    )
    if parsed.folder is not None:
        parsed.folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(_measure(vectors, parsed, parsed.folder))
        return
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        asyncio.run(_measure(vectors, parsed, Path(name)))


async def _measure(vectors: VectorSet, parsed: argparse.Namespace, folder: Path) -> None:
    queries = vectors.queries(parsed.queries)
    classes = vectors.classes()
    masks = [
        np.ones(vectors.segments, np.bool_)
        if key is None
        else np.repeat(classes[key] == 0, SEGMENTS_PER_VIDEO)
        for key in FILTERS.values()
    ]
    truth = dict(zip(FILTERS, least_cosines(vectors, queries, masks, top_k=TOP_K), strict=True))
    engines = {name: ENGINES[name](folder, vectors) for name in parsed.engines}
    try:
        for name, engine in engines.items():
            done = folder / f"{name}.{vectors.segments}.done"
            await engine.open()
            if done.exists():
                print(f"{name}: {done.read_text()}; opened again, {engine.notes()}", flush=True)
                continue
            began = time.perf_counter()
            await engine.load()
            loaded = time.perf_counter()
            await engine.build()
            built = time.perf_counter()
            gc.collect()
            took = (
                f"load {loaded - began:.1f} s"
                f" ({vectors.segments / (loaded - began):.0f} segments/s),"
                f" graph {built - loaded:.1f} s"
            )
            print(f"{name}: {took}, {engine.notes()}", flush=True)
            done.write_text(took)
        for name, engine in engines.items():
            await _tune(name, engine, queries, truth["plain"])
        for clients in (1, 8):
            for kind, key in FILTERS.items():
                await _compare(engines, queries, truth[kind], kind, key, clients, parsed.rounds)
        for name, engine in engines.items():
            print(f"{name}: after all searches {engine.notes()}", flush=True)
    finally:
        for engine in engines.values():
            await engine.close()


async def _tune(
    name: str, engine: Engine, queries: Vectors, least: npt.NDArray[np.float64]
) -> None:
    """Take the least effort that finds as much as is asked of ours, so that speeds compare."""
    for effort in engine.efforts:
        engine.effort = effort
        _, recall = await _ask(engine, queries, least, None, 1)
        print(f"{name}: effort {effort or 'of its own'}, recall {recall:.4f}", flush=True)
        if recall >= LEAST_RECALL:
            return


async def _compare(
    engines: dict[str, Engine],
    queries: Vectors,
    least: npt.NDArray[np.float64],
    kind: str,
    key: str | None,
    clients: int,
    rounds: int,
) -> None:
    asked = {name: each for name, each in engines.items() if key is None or each.has_filters}
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    walls: defaultdict[str, float] = defaultdict(float)
    recalls: defaultdict[str, list[float]] = defaultdict(list)
    for round_ in range(rounds + 1):
        for name, engine in asked.items():
            began = time.perf_counter()
            times, recall = await _ask(engine, queries, least, key, clients)
            if round_ > 0:  # the first warms up
                walls[name] += time.perf_counter() - began
                seconds[name] += times
                recalls[name].append(recall)
    for name in asked:
        middle, late = np.percentile(seconds[name], [50, 99]) * 1000
        rate = len(seconds[name]) / walls[name]
        print(
            f"{clients} clients, {kind:6s} {name:8s} p50 {middle:7.2f} ms  p99 {late:7.2f} ms"
            f"  {rate:7.1f}/s  recall@{TOP_K} {np.mean(recalls[name]):.4f}"
            f"  ({len(seconds[name])} searches)",
            flush=True,
        )


async def _ask(
    engine: Engine,
    queries: Vectors,
    least: npt.NDArray[np.float64],
    key: str | None,
    clients: int,
) -> tuple[list[float], float]:
    """Ask all queries once; seconds of each, and recall."""
    waiting = iter(range(len(queries)))
    seconds: list[float] = []
    hits: list[float] = []

    async def client() -> None:
        for number in waiting:
            began = time.perf_counter()
            cosines = await engine.search(queries[number], key=key, top_k=TOP_K)
            seconds.append(time.perf_counter() - began)
            hits.append(sum(cosine >= least[number] - 1e-5 for cosine in cosines) / TOP_K)

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, float(np.mean(hits))


if __name__ == "__main__":
    main()
