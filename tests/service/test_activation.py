"""Serving another artefact: swapped in whole, or refused while the old one serves on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from service.activation import Activation, ActivationFailedError, ActivationRunningError
from service.engine import EngineMaker
from service.kept_clip_weight import KeptClipWeight
from service.labels import LabelQuery
from service.metrics import Metrics
from service.serving import Served, Serving
from service.settings import Settings
from service.store import ArtefactStore
from service.text_cache import TextCache
from service.videoclip.manifest import ArtefactError, Manifest
from tests.drawn_video import draw_video
from tests.service.small_artefact import known_outputs, publish, weights

pytestmark = pytest.mark.anyio

LABELS = [LabelQuery((text,)) for text in ("a red square", "a green circle", "rain")]


@dataclass
class World:
    """A store and what serves it."""

    root: Path
    store: ArtefactStore
    serving: Serving
    activation: Activation
    metrics: Metrics
    kept: KeptClipWeight

    async def tag(self, video: Path) -> tuple[str, dict[str, float]]:
        """The space and the scores of one request."""
        with self.serving.lend() as loan:
            found = await loan.present.tagger.classify(video, labels=LABELS, scores="cosine")
        return found.space.id, {tag.label: tag.score for tag in found.tags}

    async def settled(self) -> None:
        """Wait until the engine that was replaced is gone."""
        while self.activation.running is not None:
            await asyncio.sleep(0.01)

    def count(self, outcome: str) -> float:
        """How many activations ended so."""
        value = self.metrics.registry.get_sample_value(
            "vtag_activations_total", {"outcome": outcome}
        )
        return value or 0.0


@asynccontextmanager
async def _world(root: Path, **settings: Any) -> AsyncIterator[World]:
    """What is active in `root` serves; afterwards nothing of it is left."""
    others = set(psutil.Process().children())
    chosen = Settings(
        data_dir=root.parent / "data",
        model_store=root,
        decode_workers=1,
        frame_slots=2,
        encoder_threads=1,
        **settings,
    )
    store, metrics = ArtefactStore(root), Metrics()
    kept = KeptClipWeight(root.parent / "lambda.json")
    cache = TextCache()
    maker = EngineMaker(chosen, store=store, kept=kept, cache=cache)
    first = await maker.make(store.active())
    serving = Serving(Served(first.tagger, first))
    activation = Activation(
        store,
        maker=maker,
        wrap=lambda made: Served(made.tagger, made),
        serving=serving,
        metrics=metrics,
        swapping=asyncio.Lock(),
        patience_seconds=30,
        limit_seconds=60,
    )
    try:
        await first.start()
        world = World(root, store, serving, activation, metrics, kept)
        yield world
        await world.settled()
    finally:
        await activation.stop()
        await serving.stop()
        await cache.close()
        assert set(psutil.Process().children()) <= others


def _second(root: Path, **more: Any) -> Manifest:
    """Another artefact, with all other weights."""
    return publish(root, name="second", clip=weights(7), tuned=weights(8), activate=False, **more)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("video") / "drawn.mp4")


@pytest.mark.slow
async def test_activated_under_load_every_answer_is_of_one_artefact(
    tmp_path: Path, video: Path
) -> None:
    """There and back while requests never pause: none is lost, each is what its space gives."""
    root = tmp_path / "store"
    first, second = publish(root), _second(root, text_tower_tuned=True)
    async with _world(root) as world:
        known = dict([await world.tag(video)])
        await world.activation.activate(second.name, second.revision, keep=False)
        known |= dict([await world.tag(video)])
        assert len(known) == 2
        done = asyncio.Event()
        seen: list[str] = []

        async def load() -> None:
            while not done.is_set():
                space, scores = await world.tag(video)
                assert scores == pytest.approx(known[space], abs=1e-5)
                seen.append(space)

        loads = [asyncio.create_task(load()) for _ in range(3)]
        for target in (first, second, first):
            await world.settled()
            answered = len(seen)
            swapped = await world.activation.activate(target.name, target.revision, keep=False)
            assert swapped.changed
            while len(seen) < answered + 6:
                await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*loads)
        assert set(seen) == set(known)
        await world.settled()
        assert world.serving.resident == 1
        assert world.count("activated") == 4


async def test_a_request_in_flight_finishes_on_the_old_engine(tmp_path: Path, video: Path) -> None:
    """Its processes end after it, not before."""
    root = tmp_path / "store"
    publish(root)
    second = _second(root)
    async with _world(root) as world:
        before, _ = await world.tag(video)
        old = world.serving.engine
        with world.serving.lend() as loan:
            tagger = loan.present.tagger
            await world.activation.activate(second.name, second.revision, keep=False)
            assert (await world.tag(video))[0].startswith("second@")
            found = await tagger.classify(video, labels=LABELS)
            assert found.space.id == before
            assert old.encoder.alive
            with pytest.raises(ActivationRunningError, match="second@"):
                await world.activation.activate(second.name, second.revision, keep=False)
        await world.settled()
        assert not old.encoder.alive
        assert old.decoder.alive == 0


def _truncate(folder: Path) -> None:
    path = folder / "weights_tuned.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def _change_one_bit(folder: Path) -> None:
    path = folder / "weights_clip.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _remove_graph(folder: Path) -> None:
    (folder / "video_encoder.onnx").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _half_a_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (_truncate, "weights_tuned.safetensors"),
        (_change_one_bit, "weights_clip.safetensors"),
        (_remove_graph, "video_encoder.onnx"),
        (_no_tokenizer, "tokenizer.json"),
        (_half_a_manifest, "manifest.json"),
    ],
)
async def test_a_broken_artefact_is_refused_with_one_line(
    tmp_path: Path,
    video: Path,
    damage: Callable[[Path], None],
    file: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line names the file; the old artefact serves on, and nothing of the new one is left."""
    root = tmp_path / "store"
    publish(root)
    second = _second(root)
    damage(root / second.name / second.revision)
    async with _world(root) as world:
        before = await world.tag(video)
        processes = set(psutil.Process().children())
        with pytest.raises(ArtefactError) as caught:
            await world.activation.activate(second.name, second.revision, keep=True)
        line = str(caught.value)
        assert line.startswith(f"second/{second.revision}/{file}: expected ")
        assert "\n" not in line
        assert str(tmp_path) not in line
        assert await world.tag(video) == before
        assert set(psutil.Process().children()) == processes
        assert (world.count("refused"), world.serving.resident) == (1, 1)
        assert world.activation.refusal(second.name, second.revision) == line
        assert json.loads((root / "active.json").read_text())["active"]["name"] == "small"
    assert [record.getMessage() for record in caplog.records].count(
        f"second@{second.revision} is not activated, {before[0].split('/')[0]} serves on: {line}"
    ) == 1


async def test_weights_that_compute_nothing_are_refused(tmp_path: Path, video: Path) -> None:
    """An artefact that is whole by its hashes, with NaN for weights, never answers a request."""
    root = tmp_path / "store"
    publish(root)
    bad = weights(9)
    bad["visual.proj"][:] = np.nan
    second = publish(root, name="second", clip=bad, tuned=weights(8), activate=False, golden={})
    async with _world(root) as world:
        before = await world.tag(video)
        with pytest.raises(ArtefactError, match="finite"):
            await world.activation.activate(second.name, second.revision, keep=True)
        assert await world.tag(video) == before


async def test_weights_that_compute_something_else_are_refused(tmp_path: Path, video: Path) -> None:
    """Others' weights with hashes and revision corrected: only the known outputs tell."""
    root = tmp_path / "store"
    publish(root)
    outputs = known_outputs(weights(7), weights(8))
    second = _second(root, text_tower_tuned=True, golden=outputs)
    stolen = publish(
        root, name="stolen", clip=weights(7), tuned=weights(9), activate=False, golden=outputs
    )
    async with _world(root) as world:
        before = await world.tag(video)
        with pytest.raises(ArtefactError) as caught:
            await world.activation.activate(stolen.name, stolen.revision, keep=True)
        line = str(caught.value)
        assert line.startswith(
            f"stolen/{stolen.revision}/video_encoder at clip_weight 0.5: expected output that is "
            "what was published, to 0.001 of the largest value, found a difference of "
        )
        assert await world.tag(video) == before
        assert json.loads((root / "active.json").read_text())["active"]["name"] == "small"
        await world.activation.activate(second.name, second.revision, keep=True)


async def test_a_machine_that_cannot_start_it_keeps_the_old_one(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the artefact's fault: it is said so, and may be tried again."""
    root = tmp_path / "store"
    publish(root)
    second = _second(root)
    async with _world(root) as world:
        before = await world.tag(video)
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/nowhere/python")
            with pytest.raises(ActivationFailedError, match=f"second@{second.revision}: "):
                await world.activation.activate(second.name, second.revision, keep=True)
        assert await world.tag(video) == before
        done = await world.activation.activate(second.name, second.revision, keep=True)
        assert done.changed
        assert world.activation.refusal(second.name, second.revision) is None


async def test_what_is_activated_is_kept_for_the_next_start(tmp_path: Path) -> None:
    """active.json names it and what was before; a store that refuses is told of."""
    root = tmp_path / "store"
    first, second = publish(root), _second(root)
    async with _world(root) as world:
        done = await world.activation.activate(second.name, second.revision, keep=True)
        assert (done.kept, done.previous) == (True, f"small@{first.revision}")
        written = json.loads((root / "active.json").read_text())
        assert written == {
            "active": {"name": "second", "revision": second.revision},
            "previous": {"name": "small", "revision": first.revision},
        }
        await world.settled()
        again = await world.activation.activate(second.name, second.revision, keep=True)
        assert (again.changed, again.kept) == (False, True)
        assert json.loads((root / "active.json").read_text()) == written
        (root / "active.json").unlink()
        (root / "active.json").mkdir()
        back = await world.activation.activate(first.name, first.revision, keep=True)
        assert (back.changed, back.kept) == (True, False)
        assert not [path for path in root.iterdir() if path.name.startswith(".active")]


async def test_each_artefact_has_its_own_lambda(tmp_path: Path, video: Path) -> None:
    """Going back finds the λ that was chosen there."""
    root = tmp_path / "store"
    first, second = publish(root), _second(root, default_clip_weight=0.25)
    async with _world(root) as world:
        await world.serving.present.tagger.set_clip_weight(0.75)
        world.kept.write(0.75, name=first.name, revision=first.revision)
        await world.activation.activate(second.name, second.revision, keep=False)
        assert (await world.tag(video))[0] == f"second@{second.revision}/0.25"
        await world.settled()
        await world.activation.activate(first.name, first.revision, keep=False)
        assert (await world.tag(video))[0] == f"small@{first.revision}/0.75"


async def test_two_at_once_are_one_and_a_refusal(tmp_path: Path) -> None:
    """The second is told which one is being activated; the first goes on without its caller."""
    root = tmp_path / "store"
    first, second = publish(root), _second(root)
    async with _world(root) as world:
        asking = asyncio.create_task(
            world.activation.activate(second.name, second.revision, keep=False)
        )
        await asyncio.sleep(0)
        with pytest.raises(ActivationRunningError, match="second@"):
            await world.activation.activate(first.name, first.revision, keep=False)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await world.settled()
        assert world.serving.present.name == f"second@{second.revision}"


async def test_stopping_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """The service may stop while a new engine starts; `_world` counts the processes."""
    root = tmp_path / "store"
    publish(root)
    second = _second(root)
    async with _world(root) as world:
        asking = asyncio.create_task(
            world.activation.activate(second.name, second.revision, keep=True)
        )
        children = len(psutil.Process().children())
        while len(psutil.Process().children()) == children:
            await asyncio.sleep(0.01)
        await world.activation.stop()
        with pytest.raises(ActivationFailedError, match="stopping"):
            await asking
        assert world.serving.present.name.startswith("small@")
        assert world.count("refused") == 0
