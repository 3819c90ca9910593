"""VTAG_PRECISION over HTTP: an artefact with graphs in fewer bits is served by them, by name."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch

from service.store import ArtefactStore
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import VARIANT_FILES, VariantName
from service.videoclip.pooling import combine_views, pool, unit
from service.videoclip.preprocessing import normalize
from tests.drawn_video import draw_video
from tests.e2e.conftest import make_client, state_folder
from tests.running_service import running_service
from tests.training.test_variants import evaluation_set
from tests.training.tiny import real_clips, tiny_description, tiny_weights
from training.graphs import load_graph
from training.publish import publish

Vector = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, published with both variants as training publishes them."""
    root = tmp_path_factory.mktemp("precision") / "model_store"
    clip, tuned = tiny_weights()
    with torch.random.fork_rng(devices=[]):
        publish(
            tiny_description(),
            clip=clip,
            tuned=tuned,
            store=root,
            real_clips=real_clips(),
            real_texts=("a red square", "something else entirely"),
            evaluation_sets={"noise": evaluation_set()},
            variant_bound=100.0,
        )
    return root


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn video of two seconds."""
    return draw_video(tmp_path_factory.mktemp("film") / "film.mp4")


def _directly(store: Path, film: Path, *, clip_weight: float, file: str) -> Vector:
    """The embedding of a film by one graph file, with nothing of the service's engine."""
    manifest = ArtefactStore(store).active()
    ends: list[dict[str, npt.NDArray[np.generic]]] = [
        {name: tensor.numpy() for name, tensor in end.items()} for end in tiny_weights()
    ]
    weights = interpolate(*ends, clip_weight=clip_weight)
    clip = decode_clips(
        film, sampling=manifest.sampling, preprocessing=manifest.preprocessing, limits=Limits()
    )
    tower = load_graph(store / manifest.name / manifest.revision / file, weights)
    frames = tower(normalize(clip.pixels, manifest.preprocessing))
    pooled = combine_views(pool(frames, pooling=manifest.pooling)[None], pooling=manifest.pooling)
    embedding: Vector = unit(pooled)[0]
    return embedding


@pytest.mark.parametrize(
    ("precision", "variant", "atol"), [("float16", "fp16", 1e-3), ("int8", "int8", 1e-4)]
)
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_variant_answers_at_every_lambda_and_is_named(
    store: Path, film: Path, precision: str, variant: VariantName, atol: float
) -> None:
    """The vector is that of the variant's own graph, not of the full one; λ changes as ever."""
    settings = {"VTAG_MODEL_STORE": str(store), "VTAG_PRECISION": precision}
    file = VARIANT_FILES[variant][0]
    with make_client(settings) as client:
        for clip_weight in (0.4, 1.0):
            answer = _ask(client, film, **{"lambda": f"{clip_weight}"})
            assert answer["model"]["precision"] == precision
            assert answer["model"]["lambda"] == clip_weight
            found = np.asarray(answer["embedding"], np.float32)
            expected = _directly(store, film, clip_weight=clip_weight, file=file)
            full = _directly(store, film, clip_weight=clip_weight, file="video_encoder.onnx")
            np.testing.assert_allclose(found, expected, atol=atol)
            assert found @ full > 0.99
            if precision == "int8":
                assert np.abs(found - full).max() > 10 * np.abs(found - expected).max()
        assert client.put("/lambda", json={"lambda": 0.0}).status_code == 200
        assert _ask(client, film)["model"]["precision"] == precision
        texts = client.post("/embeddings", json={"input": "a red square"}).json()
        assert texts["space"]["precision"] == precision


def _ask(client: httpx.Client, film: Path, **fields: str) -> dict[str, Any]:
    answer = client.post(
        "/classify",
        files={"video": film.read_bytes()},
        data={"labels": ["a red square", "a dog"], "include": "embedding", **fields},
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.slow
def test_a_variant_that_is_not_published_is_one_line(tiny_artefact: Path) -> None:
    """The service does not start with something else in silence."""
    settings = {"VTAG_MODEL_STORE": str(tiny_artefact), "VTAG_PRECISION": "int8"}
    with (
        state_folder() as folder,
        pytest.raises(RuntimeError, match="VTAG_PRECISION"),
        running_service(folder, environment=settings),
    ):
        pytest.fail("it became ready")
