"""How errors leave the service."""

import tempfile
from pathlib import Path

import anyio.to_thread
import pytest

from tests.service.app_in_process import running_app

pytestmark = pytest.mark.anyio


async def test_a_problem_is_told_without_a_thread() -> None:
    """Refusals do not queue for threads: they are answered while none is free."""
    threads = anyio.to_thread.current_default_thread_limiter()
    with tempfile.TemporaryDirectory(prefix="vtag-app-") as name:
        async with running_app(Path(name)) as (client, app, _):
            app.state.service.close()
            held = [object() for _ in range(int(threads.available_tokens))]
            for holder in held:
                threads.acquire_on_behalf_of_nowait(holder)
            try:
                answer = await client.post("/classify", files={"video": b"film"})
            finally:
                for holder in held:
                    threads.release_on_behalf_of(holder)
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
