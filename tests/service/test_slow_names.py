"""URLs whose names nobody resolves: their own requests wait, no others."""

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from service.videoclip.errors import NoFrames
from tests.service.app_in_process import running_app

pytestmark = pytest.mark.anyio

_URLS = min(32, (os.cpu_count() or 1) + 4) + 2
"""More than the event loop has threads of its own."""


async def test_a_resolver_that_hangs_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads, which threads write to the disk, and everything else are answered meanwhile."""
    answers, asked = threading.Event(), threading.Semaphore(0)

    def hang(*_: Any, **__: Any) -> list[Any]:
        asked.release()
        answers.wait()
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with running_app(
        tmp_path, error=NoFrames("Nothing."), url_hosts="*", max_in_flight=2 * _URLS
    ) as (client, _, _):
        fetches = [
            asyncio.create_task(
                client.post(
                    "/classify",
                    json={
                        "video": {"type": "url", "url": f"https://n{number}.example.org/a.mp4"},
                        "labels": ["a"],
                    },
                )
            )
            for number in range(_URLS)
        ]
        try:
            while not asked.acquire(blocking=False):
                await asyncio.sleep(0.01)
            async with asyncio.timeout(10):
                for _ in range(3):
                    form: dict[str, Any] = {"data": {"labels": "a"}}
                    answer = await client.post("/classify", files={"video": b"x" * 2**20}, **form)
                    assert answer.json()["code"] == "no_frames"
                    assert (await client.get("/readyz")).status_code == 200
                    assert (await client.get("/models")).status_code == 200
            assert not any(fetch.done() for fetch in fetches)
        finally:
            answers.set()
        codes = {(await fetch).json()["code"] for fetch in fetches}
        assert codes == {"fetch_unavailable"}
