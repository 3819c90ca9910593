"""The model store, watched: what becomes active is served, what is broken is told once."""

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from service.activation import Activation, ActivationFailedError, ActivationRunningError
from service.store import ArtefactStore
from service.store_watch import StoreWatch
from service.videoclip.manifest import ArtefactError
from tests.service.small_artefact import publish, weights

pytestmark = pytest.mark.anyio

_LOOK = 0.02


class _Activation:
    """Notes what is asked of it, and fails as it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: list[Exception] = []

    async def activate(self, name: str, revision: str, *, keep: bool) -> None:  # noqa: ARG002
        """Serve nothing."""
        assert not keep
        self.asked.append(name)
        if self.errors:
            raise self.errors.pop(0)


@asynccontextmanager
async def _watched(root: Path) -> AsyncIterator[_Activation]:
    store, activation = ArtefactStore(root), _Activation()
    watch = StoreWatch(
        store,
        activation=cast(Activation, activation),
        known=store.signature(),
        seconds=_LOOK,
    )
    watch.start()
    try:
        yield activation
    finally:
        await watch.stop()
        await watch.stop()


def _activate(root: Path, name: str, revision: str) -> None:
    beside = root / "new"
    beside.write_text(json.dumps({"active": {"name": name, "revision": revision}}))
    beside.replace(root / "active.json")


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(_LOOK / 2)


async def _looks(count: int) -> None:
    await asyncio.sleep(count * 2 * _LOOK)


async def test_what_becomes_active_is_served_once(tmp_path: Path) -> None:
    """The start itself is no change; a new name in active.json is one, and only one."""
    publish(tmp_path)
    second = publish(tmp_path, name="second", clip=weights(5), activate=False)
    async with _watched(tmp_path) as activation:
        await _looks(4)
        assert activation.asked == []
        _activate(tmp_path, "second", second.revision)
        await _until(lambda: activation.asked == ["second"])
        await _looks(4)
        assert activation.asked == ["second"]


async def test_what_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    """A folder that is copied to its place piece by piece is served when it rests."""
    publish(tmp_path)
    elsewhere = tmp_path.with_name(tmp_path.name + "-elsewhere")
    second = publish(elsewhere, name="second", clip=weights(5))
    source = elsewhere / "second" / second.revision
    target = tmp_path / "second" / second.revision
    async with _watched(tmp_path) as activation:
        target.mkdir(parents=True)
        _activate(tmp_path, "second", second.revision)
        for number in range(20):
            (target / "manifest.json").write_text("{" * number)
            await asyncio.sleep(_LOOK / 3)
        assert activation.asked == []
        shutil.copytree(source, target, dirs_exist_ok=True)
        await _until(lambda: activation.asked == ["second"])


async def test_what_was_refused_is_tried_again_when_it_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at every look: once for each state of the folder, with one line for each."""
    publish(tmp_path)
    second = publish(tmp_path, name="second", clip=weights(5), activate=False)
    path = tmp_path / "second" / second.revision / "weights_clip.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    caplog.set_level(logging.INFO, logger="vtag")
    async with _watched(tmp_path) as activation:
        activation.errors = [ArtefactError("x", expected="y", found="z")]
        _activate(tmp_path, "second", second.revision)
        await _until(lambda: activation.asked == ["second"])
        await _looks(4)
        assert activation.asked == ["second"]
        path.write_bytes(whole)
        await _until(lambda: activation.asked == ["second"] * 2)
        await _looks(4)
        assert activation.asked == ["second"] * 2
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"model store: second@{second.revision} is there"]


async def test_one_that_must_wait_is_asked_for_again(tmp_path: Path) -> None:
    """While another is being activated, and after the machine had no room for it."""
    publish(tmp_path)
    second = publish(tmp_path, name="second", clip=weights(5), activate=False)
    async with _watched(tmp_path) as activation:
        activation.errors = [ActivationRunningError("small"), ActivationRunningError("small")]
        _activate(tmp_path, "second", second.revision)
        await _until(lambda: activation.asked == ["second"] * 3)
        await _looks(4)
        assert activation.asked == ["second"] * 3


async def test_after_a_failure_of_the_machine_it_is_tried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that was short may be there again; the store need not change for that."""
    monkeypatch.setattr("service.store_watch._AGAIN_SECONDS", 0.2)
    publish(tmp_path)
    second = publish(tmp_path, name="second", clip=weights(5), activate=False)
    async with _watched(tmp_path) as activation:
        activation.errors = [ActivationFailedError("no memory")]
        _activate(tmp_path, "second", second.revision)
        await _until(lambda: activation.asked == ["second"] * 2)
        await _looks(15)
        assert activation.asked == ["second"] * 2


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"active": {"name": "../..", "revision": "0"}}']
)
async def test_a_damaged_active_file_is_one_line(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is loaded serves on; the next good file counts."""
    publish(tmp_path)
    second = publish(tmp_path, name="second", clip=weights(5), activate=False)
    async with _watched(tmp_path) as activation:
        (tmp_path / "active.json").write_bytes(content)
        await _until(lambda: bool(caplog.records))
        await _looks(4)
        [line] = [record.getMessage() for record in caplog.records]
        assert line.startswith("model store: active.json: expected ")
        assert line.endswith("; what is loaded serves on")
        _activate(tmp_path, "second", second.revision)
        await _until(lambda: activation.asked == ["second"])


async def test_what_comes_breaks_and_goes_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line each, with the reason; artefacts that are not active are not served."""
    publish(tmp_path)
    caplog.set_level(logging.INFO, logger="vtag")
    async with _watched(tmp_path) as activation:
        second = publish(tmp_path, name="second", clip=weights(5), activate=False)
        folder = tmp_path / "second" / second.revision
        await _until(lambda: len(caplog.records) == 1)
        weights_file = folder / "weights_clip.safetensors"
        weights_file.write_bytes(weights_file.read_bytes()[:100])
        await _until(lambda: len(caplog.records) == 2)
        shutil.rmtree(folder)
        await _until(lambda: len(caplog.records) == 3)
        assert activation.asked == []
    name = f"second@{second.revision}"
    there, broken, gone = [record.getMessage() for record in caplog.records]
    assert (there, gone) == (f"model store: {name} is there", f"model store: {name} is gone")
    where = f"second/{second.revision}/weights_clip.safetensors"
    assert broken.startswith(f"model store: an artefact is broken: {where}: expected ")
