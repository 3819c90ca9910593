"""The lines of deploy/README.md under "Back up and restore" bring everything back."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose.compose_file import read_compose
from tests.compose.processes import Stack, running_stack
from tests.compose.questions import ask, index_samples, search
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

_SERVICES = ("postgres", "redis", "vtag")


def lines_of(block: str) -> list[str]:
    """The commands of one block of the page."""
    page = (REPOSITORY / "deploy" / "README.md").read_text()
    found = re.search(rf"^```sh {block}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].splitlines()


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Everything that the page's lines speak of, running."""
    with (
        tempfile.TemporaryDirectory(prefix="vtag-backup-") as folder,
        running_stack(read_compose(), Path(folder)) as found,
    ):
        for name in _SERVICES:
            found.start(name)
        yield found


def carry_out(stack: Stack, line: str) -> None:
    """Do what one line does: `up` starts processes, `exec` and `run` run a program here."""
    words = shlex.split(line)
    assert words[:2] == ["docker", "compose"], line
    verb, *rest = words[2:]
    if verb == "up":
        named = [word for word in rest if not word.startswith("-")]
        for name in named or [name for name in _SERVICES if name not in stack.running]:
            stack.start(name)
        return
    assert verb in ("exec", "run"), line
    source = output = None
    if rest[-2] in "<>":
        sign, file = rest[-2:]
        rest = rest[:-2]
        source = stack.folder / file if sign == "<" else None
        output = stack.folder / file if sign == ">" else None
    entry = rest.index("--entrypoint") if "--entrypoint" in rest else None
    program = [rest[entry + 1]] if entry is not None else []
    if entry is not None:
        del rest[entry : entry + 2]
    service, *arguments = [word for word in rest if word not in ("-T", "--no-deps", "--rm")]
    command = [stack.translation.text(word, of=service) for word in [*program, *arguments]]
    if service == "postgres":
        port = str(stack.translation.ports["postgres", 5432])
        command[0] = str(stack.postgres_programs / command[0])
        command[1:1] = ["--host=127.0.0.1", f"--port={port}"]
    password = stack.document["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "PGPASSWORD": password},
        input=source.read_bytes() if source else None,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    if output is not None:
        output.write_bytes(done.stdout)


def test_dump_wipe_restore_same_answers(stack: Stack) -> None:
    """Hits, scores, the kept videos' bytes and the chosen λ are what they were."""
    changed = httpx.put(f"{stack.url('vtag', 8000)}/lambda", json={"lambda": 0.25}, timeout=120)
    assert changed.is_success, changed.text
    index_samples(stack)
    before, served = search(stack), ask(stack, "/lambda")["lambda"]
    assert isinstance(before, list)
    assert before
    video = f"{stack.url('vtag', 8000)}/videos/{before[0]['video_id']}/content"
    content = httpx.get(video, timeout=60).content

    for line in lines_of("backup"):
        carry_out(stack, line)
    for name in reversed(_SERVICES):
        stack.stop(name)
    for volume in stack.translation.volumes.values():
        shutil.rmtree(volume)
        volume.mkdir()
    for line in lines_of("restore"):
        carry_out(stack, line)

    assert search(stack) == before
    assert ask(stack, "/lambda")["lambda"] == served == 0.25
    assert httpx.get(video, timeout=60).content == content
