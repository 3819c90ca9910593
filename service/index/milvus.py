"""A Milvus: a server or cluster by URL, or milvus-lite in a file; called from threads of its own.

One Milvus collection holds the vectors of one embedding space, so that vectors of two spaces never
meet; collections of the service are its partition key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from service.index.video_index import IndexSetupError, IndexUnavailableError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

logger = logging.getLogger("vtag")

T = TypeVar("T")

MAX_LIMIT: Final = 16_384
"""Most results of one search or query; Milvus's own bound (proxy quota topK)."""

WRITE_SECONDS: Final = 30.0
"""A write that takes longer is given up; nothing of it comes later."""

_READ_SECONDS: Final = 10.0
_BUILD_SECONDS: Final = 2.0  # between looks at a graph that is being built
_AWAY_SECONDS: Final = 1.0  # after a failure nobody waits for the next one
_START_SECONDS: Final = 10.0
_PING_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 20.0  # milvus-lite finishes what it writes; now and then it never ends
_THREADS: Final = 8
_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # of vectors in one write; servers take 64 MB
_ROW_BYTES: Final = 2048  # of a row beside its vector, metadata included
_MAX_ID: Final = 64  # characters of an id of a video
_MAX_EXTERNAL_ID: Final = 4096  # bytes
_BUILD: Final = {"M": 16, "efConstruction": 128}  # as the graphs in Postgres
_LEAST_EF: Final = 256  # with 64, filters cost recall
# Whatever was acknowledged is found by the next search, through any replica of the service.
_CONSISTENCY: Final = "Strong"


class Milvus:
    """One Milvus and the names that this service uses in it.

    Args:
        url: http:// or https:// of a server, with a database as path; or a file of milvus-lite,
            which ends in .db.
        token: ``user:password`` or an API key; None: none, or in the URL.
        ca_file: PEM file of the authority that signed the server's certificate; None: known ones.
    """

    def __init__(self, url: str, *, token: str | None = None, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        self._is_lite = parts.scheme in ("", "file")
        self._url = url
        if self._is_lite:
            self._url = str(Path(unquote(parts.path) if parts.scheme else url).absolute())
        self._token = token
        self._ca_file = ca_file
        self._client: MilvusClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._writers: ThreadPoolExecutor | None = None
        self._away_until = 0.0
        self._ready: set[str] = set()
        self._opening = asyncio.Lock()

    async def start(self) -> None:
        """Connect; milvus-lite is started.

        Raises:
            IndexSetupError: with one line that tells the operator what to change.
        """
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise IndexSetupError("VTAG_VECTOR_URL: needs the extra milvus (pymilvus)") from None
        # It writes down what clients sent; what failed is said here.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        if self._is_lite:
            Path(self._url).parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {} if self._token is None else {"token": self._token}
        if self._ca_file is not None:
            options |= {"secure": True, "server_pem_path": str(self._ca_file)}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="milvus")
        # milvus-lite is safe for one writer only; whoever is cancelled leaves a thread that writes.
        self._writers = ThreadPoolExecutor(
            1 if self._is_lite else _THREADS, thread_name_prefix="milvus-writer"
        )
        try:
            self._client = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: MilvusClient(self._url, timeout=_START_SECONDS, dedicated=True, **options),
            )
            await self.ping()
        except Exception as error:
            await self.close()
            # The URL may hold a password and the library repeats what it likes: its kind only.
            hint = " (one process at a time)" if self._is_lite else ""
            raise IndexSetupError(
                f"VTAG_VECTOR_URL: cannot be used ({type(error).__name__}){hint}"
            ) from error

    async def close(self) -> None:
        """Disconnect, and stop milvus-lite. Safe to call twice."""
        client, self._client = self._client, None
        threads, self._threads = self._threads, None
        writers, self._writers = self._writers, None
        if threads is None or writers is None:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if client is not None:
                    await loop.run_in_executor(threads, client.close)
                if self._is_lite:
                    from milvus_lite.server_manager import server_manager_instance

                    await loop.run_in_executor(
                        threads, server_manager_instance.release_server, self._url
                    )
        except TimeoutError:
            logger.warning("Milvus does not let go in %g s: left behind", _CLOSE_SECONDS)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=False, cancel_futures=True)
            self._ready.clear()

    async def ping(self) -> None:
        """Return if it answers.

        Raises:
            IndexUnavailableError: it does not.
        """
        await self._call(lambda client: client.list_collections(timeout=_PING_SECONDS))

    async def has(self, name: str) -> bool:
        """Tell whether there is a Milvus collection of this name."""
        return bool(
            await self._call(lambda client: client.has_collection(name, timeout=_READ_SECONDS))
        )

    async def _open(self, name: str, *, dimensions: int | None = None) -> bool:
        """Make a Milvus collection ready for searches; tell whether it is there.

        One that is not is made, if the length of its vectors is given.
        """
        if name in self._ready:
            return True
        async with self._opening:
            if not await self.has(name):
                if dimensions is None:
                    return False
                try:
                    await self._call(lambda client: self._create(client, name, dimensions))
                except IndexUnavailableError:
                    if not await self.has(name):  # else another service was faster
                        raise
            # A server that was started anew may not have loaded it.
            await self._call(lambda client: client.load_collection(name, timeout=WRITE_SECONDS))
            self._ready.add(name)
        return True

    async def build(self, name: str) -> None:
        """Return when the graph of a space has all that was written; milvus-lite has none."""
        if self._is_lite or not await self.has(name):
            return
        # What is not sealed is compared whole until then.
        await self._change(lambda client: client.flush(name, timeout=WRITE_SECONDS))
        while await self._call(lambda client: _pending(client, name)):
            await asyncio.sleep(_BUILD_SECONDS)

    async def write(self, name: str, rows: Sequence[Mapping[str, Any]], *, dimensions: int) -> None:
        """Write rows with all their fields; those with a known ``id`` are replaced."""
        await self._open(name, dimensions=dimensions)
        step = max(1, _MESSAGE_BYTES // (4 * dimensions + _ROW_BYTES))
        for start in range(0, len(rows), step):
            some = [dict(row) for row in rows[start : start + step]]
            await self._change(partial(_upsert, name=name, rows=some))

    async def remove(self, name: str, wanted: str) -> None:
        """Remove rows by an expression; a collection that is not there has none."""
        if await self._open(name):
            await self._change(
                lambda client: client.delete(name, filter=wanted, timeout=WRITE_SECONDS)
            )

    async def read(self, name: str, wanted: str, *, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Return up to `MAX_LIMIT` rows that an expression chooses."""

        def query(client: MilvusClient) -> list[dict[str, Any]]:
            return list(
                client.query(
                    name,
                    filter=wanted,
                    output_fields=list(fields),
                    limit=MAX_LIMIT,
                    consistency_level=_CONSISTENCY,
                    timeout=_READ_SECONDS,
                )
            )

        if not await self._open(name):
            return []
        return [dict(row) for row in await self._call(query)]

    async def nearest(
        self, name: str, query: Any, *, wanted: str, limit: int, fields: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return the rows of the largest inner product with ``query``, float32 (D,)."""

        def search(client: MilvusClient) -> list[dict[str, Any]]:
            found = client.search(
                name,
                data=[query.tolist()],
                filter=wanted,
                limit=limit,
                output_fields=list(fields),
                search_params={
                    "metric_type": "IP",
                    "params": {} if self._is_lite else {"ef": max(_LEAST_EF, 2 * limit)},
                },
                consistency_level=_CONSISTENCY,
                timeout=_READ_SECONDS,
            )
            return [dict(hit["entity"]) for hit in found[0]]

        if not await self._open(name):
            return []
        return await self._call(search)

    def _create(self, client: MilvusClient, name: str, dimensions: int) -> None:
        from pymilvus import DataType

        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("collection_id", DataType.INT64, is_partition_key=True)
        schema.add_field("video_id", DataType.VARCHAR, max_length=_MAX_ID)
        schema.add_field("ordinal", DataType.INT64)
        schema.add_field("start_seconds", DataType.DOUBLE)
        schema.add_field("end_seconds", DataType.DOUBLE)
        schema.add_field("external_id", DataType.VARCHAR, max_length=_MAX_EXTERNAL_ID)
        schema.add_field("created_at", DataType.INT64)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
        index = client.prepare_index_params()
        # In milvus-lite a graph may lose rows, and loses recall under filters: it compares all.
        kind, build = ("FLAT", {}) if self._is_lite else ("HNSW", _BUILD)
        index.add_index("vector", index_type=kind, metric_type="IP", params=build)
        client.create_collection(
            name,
            schema=schema,
            index_params=index,
            consistency_level=_CONSISTENCY,
            timeout=_READ_SECONDS,
        )

    async def _change(self, work: Callable[[MilvusClient], object]) -> None:
        await self._call(work, threads=self._writers)

    async def _call(
        self, work: Callable[[MilvusClient], T], *, threads: ThreadPoolExecutor | None = None
    ) -> T:
        """Call it from a thread.

        Raises:
            IndexUnavailableError: it does not answer, or refuses.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        loop = asyncio.get_running_loop()
        client, threads = self._client, threads or self._threads
        if client is None or threads is None or loop.time() < self._away_until:
            raise IndexUnavailableError
        try:
            return await loop.run_in_executor(threads, lambda: work(client))
        except (MilvusException, grpc.RpcError) as error:
            if isinstance(getattr(error, "code", None), grpc.StatusCode):  # not its own answer
                self._away_until = loop.time() + _AWAY_SECONDS
            self._ready.clear()  # whatever it was, look anew
            # The kind only: what the library says may repeat what clients sent.
            logger.warning("Milvus refuses: %s", type(error).__name__)
            raise IndexUnavailableError from error


def _upsert(client: MilvusClient, *, name: str, rows: list[dict[str, Any]]) -> None:
    client.upsert(name, rows, timeout=WRITE_SECONDS)


def _pending(client: MilvusClient, name: str) -> int:
    found = client.describe_index(name, "vector", timeout=_READ_SECONDS)
    return int(found.get("pending_index_rows", 0))
