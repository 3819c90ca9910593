"""What the tests ask a running stack."""

import httpx

from tests.compose.processes import Stack
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY / "deploy" / "samples"
QUERY = "a cross growing"


def ask(stack: Stack, path: str, **request: object) -> dict[str, object]:
    """POST, or GET where nothing is sent; the answer has to be a success."""
    method = "POST" if request else "GET"
    answer = httpx.request(
        method,
        f"{stack.url('vtag', 8000)}{path}",
        timeout=120,
        **request,  # type: ignore[arg-type]
    )
    assert answer.is_success, answer.text
    found: dict[str, object] = answer.json()
    return found


def index_samples(stack: Stack) -> None:
    """Send every sample video to be searched; sent again it is the same one."""
    for path in sorted(SAMPLES.glob("*.mp4")):
        ask(stack, "/videos", files={"video": path.read_bytes()})


def search(stack: Stack) -> object:
    """Hits of one query."""
    return ask(stack, "/search", json={"query": QUERY})["data"]
