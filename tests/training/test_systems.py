"""Every system as an artefact: exported, compared, published, and served."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from service.encode.device import CPU
from service.encode.runtime import Model, RuntimeName
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import load_manifest
from service.videoclip.pooling import pool, unit
from service.videoclip.preprocessing import normalize
from service.videoclip.tokenizing import Tokenizer
from tests.drawn_video import draw_video
from tests.e2e.conftest import make_client
from tests.training.tiny import (
    ARCHITECTURE,
    FRAMES,
    PROMPTS,
    real_clips,
    system,
    tiny_description,
    unlike,
)
from training.data.annotations import LabelledVideo
from training.evaluate.artefact import PublishedModel
from training.models.endpoints import clip_end
from training.models.network import VideoCLIP, build
from training.parity import BATCHES, ONE_BATCH
from training.publish import publish

pytestmark = pytest.mark.slow  # an export takes ten seconds

# Together they have every part, with and without neighbours.
NAMES = ("everything", "prompts", "t-trans", "t1d")
LABELS = ["a red square", "a green circle", "rain"]


@pytest.fixture(scope="module", params=NAMES)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The name of a system, and the folder of its artefact: CLIP at one end, tuned at the other."""
    name = request.param
    root = tmp_path_factory.mktemp("systems") / "model_store"
    tuned = unlike(build(system(name), seed=2)).state_dict()
    plain = build({**system(name), "temporal_head": "none", "prompts": None}, seed=1).state_dict()
    description = replace(
        tiny_description("system"),
        recipe=name,
        architecture=system(name),
        pooling="mean_then_normalize" if name == "t-trans" else "normalize_then_mean",
    )
    folder = publish(
        description,
        clip=clip_end(system(name), plain, tuned),
        tuned=tuned,
        store=root,
        real_clips=real_clips(),
        real_texts=tuple(LABELS),
    )
    return name, folder


def network_at(folder: Path, clip_weight: float) -> VideoCLIP:
    """The artefact's network at λ, from its manifest and weights."""
    from safetensors.numpy import load_file

    ends = [load_file(folder / f"weights_{end}.safetensors") for end in ("clip", "tuned")]
    network = build(load_manifest(folder).architecture)
    weights = interpolate(ends[0], ends[1], clip_weight=clip_weight)
    network.load_state_dict({n: torch.tensor(a) for n, a in weights.items()}, strict=True)
    return network


def test_its_graphs_agree_with_the_network(published: tuple[str, Path]) -> None:
    """At λ = 0 (each batch size), 0.5 and 1, on random and real inputs, both kinds of graph."""
    name, folder = published
    manifest = load_manifest(folder)
    cases = {(p.graph, p.clip_weight, p.batch, p.inputs) for p in manifest.parity}
    assert len(cases) == 4 * (len(BATCHES) + 2 * len(ONE_BATCH)) * 2
    assert {p.clip_weight for p in manifest.parity} == {0.0, 0.5, 1.0}
    assert max(p.max_rel_error for p in manifest.parity) < 1e-5
    head, prompts = system(name).get("temporal_head", "none"), system(name).get("prompts")
    assert manifest.architecture["temporal_head"] == head
    assert manifest.architecture["prompts"] == prompts
    taken = PROMPTS["text"] if prompts else 0
    assert manifest.context_length == ARCHITECTURE["text_cfg"]["context_length"] - taken


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_the_services_runtimes_run_it(published: tuple[str, Path], runtime: RuntimeName) -> None:
    """Any number of clips and of labels, short and as long as its context, at any λ."""
    _, folder = published
    manifest = load_manifest(folder)
    model = Model(folder, manifest=manifest, runtime=runtime, threads=1, device=CPU)
    tokenizer = Tokenizer(folder / "tokenizer.json", manifest.context_length)
    ids, cut = tokenizer.encode([*LABELS, "words " * manifest.context_length])
    assert cut.tolist() == [False, False, False, True]
    assert ids.shape[1] == manifest.context_length
    clips = np.random.default_rng(0).standard_normal((3, FRAMES, 3, 40, 40), dtype=np.float32)
    for clip_weight in (0.0, 0.35, 1.0):
        network, served = network_at(folder, clip_weight), model.build(clip_weight)
        with torch.no_grad():
            video = network.encode_frames(torch.from_numpy(clips)).numpy()
            text = network.encode_text(torch.from_numpy(ids)).numpy()
        for number in (1, 3):
            np.testing.assert_allclose(served.video(clips[:number]), video[:number], atol=2e-5)
        np.testing.assert_allclose(served.text(ids), text, atol=2e-5)
        alone = served.text(tokenizer.encode(LABELS[2:])[0])
        np.testing.assert_allclose(alone, text[2:3], atol=2e-5)


@pytest.fixture(scope="module")
def client(published: tuple[str, Path]) -> Iterator[httpx.Client]:
    """A client of a service with this artefact."""
    _, folder = published
    with make_client({"VTAG_MODEL_STORE": str(folder.parent.parent)}) as client:
        yield client


def test_it_is_served(client: httpx.Client, published: tuple[str, Path], tmp_path: Path) -> None:
    """`/classify` gives what the network gives, `/search` finds the video, and λ can be changed."""
    _, folder = published
    film = draw_video(tmp_path / "film.mp4")
    for clip_weight in (0.4, 1.0):
        changed = client.put("/lambda", json={"lambda": clip_weight})
        assert changed.status_code == 200, changed.text
        answer = client.post(
            "/classify",
            files={"video": film.read_bytes()},
            data={"labels": LABELS, "scores": "cosine"},
        )
        assert answer.status_code == 200, answer.text
        found = {tag["label"]: tag["cosine"] for tag in answer.json()["tags"]}
        expected = dict(zip(LABELS, cosines(folder, film, clip_weight), strict=True))
        assert found == pytest.approx(expected, abs=1e-5)
        assert answer.json()["model"]["lambda"] == clip_weight
    indexed = client.post("/videos", files={"video": film.read_bytes()})
    assert indexed.status_code == 201, indexed.text
    body = client.post("/search", json={"query": "a red square"}).json()
    assert body["data"][0]["video_id"] == indexed.json()["id"]
    assert load_manifest(folder).revision in answer.json()["model"]["space"]


def cosines(folder: Path, film: Path, clip_weight: float) -> list[float]:
    """Of a video and the labels, by the network itself."""
    manifest = load_manifest(folder)
    network = network_at(folder, clip_weight)
    tokenizer = Tokenizer(folder / "tokenizer.json", manifest.context_length)
    frames = PublishedModel(folder).decode([LabelledVideo(film, "")]).frames[0]
    clips = torch.from_numpy(normalize(frames, manifest.preprocessing))
    with torch.no_grad():
        video = network.encode_frames(clips).numpy()
        text = network.encode_text(torch.from_numpy(tokenizer.encode(LABELS)[0])).numpy()
    pooled = unit(pool(video, pooling=manifest.pooling))[0]
    return [float(value) for value in unit(text) @ pooled]
