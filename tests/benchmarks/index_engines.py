"""The engines that `bench_index` compares, each as its documentation says to use it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from service.index.embedded import EmbeddedPostgres
from service.index.filter import Filter, OneOf
from service.index.postgres import PostgresIndex
from service.index.segment import NewSegment
from service.index.space import Space
from service.index.video_index import Batch, NewVideo
from service.index.wish import Wish
from tests.benchmarks.vector_set import SEGMENTS_PER_VIDEO, Vectors, VectorSet

_MIB = 1 << 20
_BATCH = 500  # videos of one load
_CLIENTS = 8
EFFORTS = (64, 100, 150, 200, 300, 400, 600)
_SIZES = """
    SELECT pg_table_size('segments') + pg_table_size('videos'), sum(pg_relation_size(c.oid))
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw'
"""


class Engine(Protocol):
    """Something that finds the nearest."""

    has_filters: bool
    efforts: Sequence[int]
    """How much a search may look at: the benchmark takes the least that finds enough."""
    effort: int

    def __init__(self, folder: Path, vectors: VectorSet) -> None: ...

    async def open(self) -> None:
        """Be ready to load, or to search what was loaded before."""

    async def load(self) -> None:
        """Store all vectors."""

    async def build(self) -> None:
        """Build what makes search fast."""

    def notes(self) -> str:
        """Say how much disk and memory it takes."""

    async def search(self, query: Vectors, *, key: str | None, top_k: int) -> list[float]:
        """Return the cosines of the nearest; of videos whose value of ``key`` is 0."""

    async def close(self) -> None:
        """Free all."""


class OurEngine:
    """The index of the service over its embedded Postgres."""

    has_filters = True
    efforts: Sequence[int] = (0,)  # it chooses itself
    effort = 0

    def __init__(self, folder: Path, vectors: VectorSet) -> None:
        self._vectors = vectors
        folder.chmod(0o755)  # run as root, the server is another user
        self._folder = folder / "vtag"
        self._server = EmbeddedPostgres(self._folder / "postgres")
        self._index = PostgresIndex(self._server, graph_memory_bytes=4 << 30)
        self._space = Space("bench", "0", 0.0, vectors.real.shape[1])
        self._sizes = ""

    async def open(self) -> None:
        """Start the server."""
        await self._index.start()

    async def load(self) -> None:
        """Load by `add_many`."""
        classes = {name: values.tolist() for name, values in self._vectors.classes().items()}
        for start, chunk in self._vectors.chunks():
            first = start // SEGMENTS_PER_VIDEO
            videos = chunk.reshape(-1, SEGMENTS_PER_VIDEO, chunk.shape[1])
            batch: list[Any] = []
            for number, rows in enumerate(videos, first):
                metadata = {name: values[number] for name, values in classes.items()}
                facts = (float(SEGMENTS_PER_VIDEO), 25.0, 64, 48, "h264")
                video = NewVideo(f"{number}", 1, None, metadata, *facts)
                batch.append((video, [NewSegment(s, s + 1.0, row) for s, row in enumerate(rows)]))
            for begin in range(0, len(batch), _BATCH):
                part: Batch = batch[begin : begin + _BATCH]
                await self._index.add_many(part, space=self._space)

    async def build(self) -> None:
        """Build the graph."""
        await self._index.build_graphs()
        table, graph = await self._index.database.run(lambda c: c.fetchrow(_SIZES))
        self._sizes = f"rows {table / _MIB:.0f} MiB, graph {graph / _MIB:.0f} MiB"

    def notes(self) -> str:
        """Disk of the whole cluster, its log of writes included; memory of its processes.

        Pages of the server's own cache count as memory once, and those of the system's cache not.
        """
        disk = sum(each.stat().st_size for each in self._folder.rglob("*") if each.is_file())
        server = psutil.Process(self._server.pid)
        shares = [each.memory_full_info().pss for each in (server, *server.children())]
        return f"disk {disk / _MIB:.0f} MiB ({self._sizes}), memory {sum(shares) / _MIB:.0f} MiB"

    async def search(self, query: Vectors, *, key: str | None, top_k: int) -> list[float]:
        """Ask as `POST /search` does."""
        wanted = Filter() if key is None else Filter(metadata=(OneOf(key, (0,)),))
        wish = Wish(top_k, "segment", top_k, wanted=wanted)
        hits = await self._index.search(query, space=self._space, wish=wish)
        return [hit.segments[0].cosine for hit in hits]

    async def close(self) -> None:
        """Stop the server."""
        await self._index.close()


class FaissEngine:
    """FAISS HNSW of whole precision, in this process."""

    has_filters = False
    efforts: Sequence[int] = EFFORTS
    effort = EFFORTS[0]

    def __init__(self, folder: Path, vectors: VectorSet) -> None:
        self._vectors = vectors
        self._path = folder / "faiss.index"
        self._drawn: list[Vectors] = []
        self._index: Any = None
        self._before = 0
        self._threads = ThreadPoolExecutor(_CLIENTS)

    async def open(self) -> None:
        """Read what was written."""
        import faiss

        self._before = psutil.Process().memory_info().rss
        if self._path.exists():
            self._index = faiss.read_index(str(self._path))
            faiss.omp_set_num_threads(1)

    async def load(self) -> None:
        """Draw them; it takes them while it builds."""
        import faiss

        dimensions = self._vectors.real.shape[1]
        self._index = faiss.IndexHNSWFlat(dimensions, 16, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 128
        self._drawn = [chunk for _, chunk in self._vectors.chunks()]

    async def build(self) -> None:
        """Add all, on all cores."""
        import faiss

        while self._drawn:
            self._index.add(self._drawn.pop(0))
        faiss.write_index(self._index, str(self._path))
        faiss.omp_set_num_threads(1)

    def notes(self) -> str:
        """Size of the written index; what this process has grown by."""
        memory = psutil.Process().memory_info().rss - self._before
        return f"disk {self._path.stat().st_size / _MIB:.0f} MiB, memory {memory / _MIB:.0f} MiB"

    async def search(self, query: Vectors, *, key: str | None, top_k: int) -> list[float]:
        """Search on a thread, as its clients are."""
        assert key is None
        self._index.hnsw.efSearch = self.effort

        def work() -> list[float]:
            cosines, _ = self._index.search(query[None], top_k)
            return [float(cosine) for cosine in cosines[0]]

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Free it."""
        self._threads.shutdown()
        self._index = None


class LanceEngine:
    """LanceDB, IVF_HNSW_SQ with refining, scalar indexes for the filters."""

    has_filters = True
    efforts: Sequence[int] = EFFORTS
    effort = EFFORTS[0]

    def __init__(self, folder: Path, vectors: VectorSet) -> None:
        self._vectors = vectors
        self._folder = folder / "lance"
        self._database: Any = None
        self._table: Any = None
        self._before = 0

    async def open(self) -> None:
        """Open the table if it is there."""
        import lancedb

        self._before = psutil.Process().memory_info().rss
        self._database = await lancedb.connect_async(str(self._folder))
        if "segments" in await self._database.table_names():
            self._table = await self._database.open_table("segments")

    async def load(self) -> None:
        """Add by chunks."""
        import pyarrow as pa

        dimensions = self._vectors.real.shape[1]
        classes = {
            name: np.repeat(values, SEGMENTS_PER_VIDEO).astype(np.int32)
            for name, values in self._vectors.classes().items()
        }
        schema = pa.schema(
            [("vector", pa.list_(pa.float32(), dimensions))]
            + [(name, pa.int32()) for name in classes]
        )
        self._table = await self._database.create_table("segments", schema=schema)
        for start, chunk in self._vectors.chunks():
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), dimensions),
                *(pa.array(values[start : start + len(chunk)]) for values in classes.values()),
            ]
            await self._table.add(pa.Table.from_arrays(columns, schema=schema))

    async def build(self) -> None:
        """Build the index of vectors and those of the filters."""
        from lancedb.index import Bitmap, HnswSq

        await self._table.create_index(
            "vector", config=HnswSq(distance_type="dot", m=16, ef_construction=128)
        )
        for name in ("tenth", "hundredth"):
            await self._table.create_index(name, config=Bitmap())
        await self._table.optimize()

    def notes(self) -> str:
        """Size of its folder; what this process has grown by."""
        disk = sum(each.stat().st_size for each in self._folder.rglob("*") if each.is_file())
        memory = psutil.Process().memory_info().rss - self._before
        return f"disk {disk / _MIB:.0f} MiB, memory {memory / _MIB:.0f} MiB"

    async def search(self, query: Vectors, *, key: str | None, top_k: int) -> list[float]:
        """Search by its asynchronous interface."""
        asked = self._table.query().nearest_to(query).distance_type("dot").limit(top_k)
        asked = asked.ef(self.effort).refine_factor(4).select(["_distance"])
        if key is not None:
            asked = asked.where(f"{key} = 0")
        rows = await asked.to_list()
        return [1.0 - row["_distance"] for row in rows]  # its distance is 1 - dot

    async def close(self) -> None:
        """Free it."""
        self._table = None
