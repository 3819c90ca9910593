"""The files of the served artefact cut, replaced and removed under load."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from tests.faults.conftest import World
from tests.faults.load import tag, under_load, until

pytestmark = pytest.mark.timeout(400)

AWAY = {(503, "encoder_unavailable"), (503, "saturated"), (504, "deadline_exceeded")}


@pytest.fixture
def folder(world: World) -> Iterator[Path]:
    """The folder of the served artefact, made whole again after the test."""
    kept = {path: path.read_bytes() for path in world.folder.iterdir()}
    yield world.folder
    for path in world.folder.iterdir():
        if path not in kept:
            path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def _put(world: World, value: float) -> httpx.Response:
    return httpx.put(f"{world.url}/lambda", json={"lambda": value}, timeout=120)


def test_files_cut_short_under_load_change_no_answer(world: World, folder: Path) -> None:
    """Each is cut in place, as by a disk that fills while it is copied over; what runs, runs on."""
    with under_load(world.url, world.film, world.expect) as answers:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
    answers.require()
    assert world.ready()


def _change_graph(path: Path) -> None:
    """Another graph of the same inputs, outputs and weights: it negates what it gives."""
    model = onnx.load(path, load_external_data=False)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["frame_embeddings"]))
    path.write_bytes(model.SerializeToString())


def test_other_weights_under_the_same_name_never_answer(world: World, folder: Path) -> None:
    """Files that are whole but others': a new λ is of the old ones, or is refused."""
    for name in ("weights_clip", "weights_tuned"):
        path = folder / f"{name}.safetensors"
        arrays = load_file(path)
        save_file({key: np.asarray(-2 * value) for key, value in arrays.items()}, path)
    _change_graph(folder / "video_encoder.onnx")
    before = httpx.get(f"{world.url}/lambda", timeout=60).json()["lambda"]
    with under_load(world.url, world.film, world.expect) as answers:
        for value in (0.15, 0.9, before):
            answer = _put(world, value)
            assert answer.status_code in (200, 500, 503), answer.text
    answers.require()


def test_an_encoder_killed_over_damaged_files_waits_for_whole_ones(
    world: World, folder: Path
) -> None:
    """It starts with nothing that it cannot verify: 503 meanwhile, ready by itself afterwards."""
    path = folder / "weights_tuned.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    [encoder] = world.workers("encode")
    encoder.send_signal(signal.SIGKILL)
    until(lambda: world.components()["encoder"] == "down")
    refused = tag(world.url, world.film, timeout_s="3")
    assert (refused.status_code, refused.json()["code"]) in AWAY
    path.write_bytes(whole)
    until(world.ready, seconds=120)
    with under_load(world.url, world.film, world.expect) as answers:
        pass
    answers.require()
