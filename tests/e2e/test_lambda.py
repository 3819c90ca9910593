"""λ over HTTP: the end points are the weight files, spaces are kept apart, nobody is disturbed."""

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from service.store import ArtefactStore
from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.pooling import combine_views, pool, unit
from service.videoclip.preprocessing import normalize
from tests.drawn_video import draw_video
from tests.e2e.conftest import make_client

Film = Callable[..., bytes]


@pytest.fixture(scope="module")
def client(tiny_artefact: Path) -> Iterator[httpx.Client]:
    """A client of a service with a real small network."""
    with make_client({"VTAG_MODEL_STORE": str(tiny_artefact)}) as client:
        yield client


def _directly(store: Path, film: Path, weights: str) -> npt.NDArray[np.float32]:
    """The embedding of a film by ONNX Runtime on one weight file, with nothing of the engine."""
    manifest = ArtefactStore(store).active()
    folder = store / manifest.name / manifest.revision
    model = onnx.load(folder / "video_encoder.onnx", load_external_data=False)
    arrays = load_file(folder / weights)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name], tensor.name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    clip = decode_clips(
        film, sampling=manifest.sampling, preprocessing=manifest.preprocessing, limits=Limits()
    )
    [frames] = session.run(None, {"frames": normalize(clip.pixels, manifest.preprocessing)})
    pooled = combine_views(pool(frames, pooling=manifest.pooling)[None], pooling=manifest.pooling)
    embedding: npt.NDArray[np.float32] = unit(pooled)[0]
    return embedding


def _embedding(client: httpx.Client, film: Path) -> tuple[list[float], float]:
    body = client.post(
        "/classify",
        files={"video": film.read_bytes()},
        data={"labels": ["a red square", "a dog"], "include": "embedding"},
    ).json()
    return body["embedding"], body["model"]["lambda"]


def _put(client: httpx.Client, value: float) -> httpx.Response:
    return client.put("/lambda", json={"lambda": value})


def test_the_end_points_are_the_weight_files(
    client: httpx.Client, tiny_artefact: Path, tmp_path: Path
) -> None:
    """λ = 1 is CLIP and λ = 0 the tuned network, to 1e-4, without a restart."""
    film = draw_video(tmp_path / "film.mp4")
    found = {}
    for value, weights in ((1.0, "weights_clip"), (0.0, "weights_tuned"), (1.0, "weights_clip")):
        assert _put(client, value).status_code == 200
        embedding, named = _embedding(client, film)
        assert named == value
        expected = _directly(tiny_artefact, film, f"{weights}.safetensors")
        assert np.abs(np.asarray(embedding) - expected).max() < 1e-4
        found[value] = expected
    assert np.abs(found[0.0] - found[1.0]).max() > 1e-2


def test_lambda_shows_what_was_measured_and_is_guarded_by_its_version(client: httpx.Client) -> None:
    """Curve, rule and present value; If-Match with an old version changes nothing."""
    _put(client, 0.4)
    answer = client.get("/lambda")
    body = answer.json()
    assert (body["lambda"], body["default"], body["grid"]) == (0.4, 0.4, [0.0, 0.4, 1.0])
    assert body["selection"]["why"] == "fixed by the test"
    first = answer.headers["etag"]
    assert client.put("/lambda", json={"lambda": 0.3}, headers={"If-Match": first}).is_success
    late = client.put("/lambda", json={"lambda": 0.9}, headers={"If-Match": first})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert client.get("/lambda").json()["lambda"] == 0.3
    assert _put(client, 0.30000000001).json()["lambda"] == 0.3


@pytest.mark.parametrize("body", ['{"lambda": 1.1}', '{"lambda": "0.5"}', "{}", '{"lambda": null}'])
def test_a_lambda_that_is_none_is_refused(client: httpx.Client, body: str) -> None:
    """Only numbers from 0 to 1."""
    answer = client.put("/lambda", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["param"]) == (422, "lambda")


def test_a_request_names_its_lambda_while_another_is_served(
    client: httpx.Client, tmp_path: Path
) -> None:
    """The answer is that of the λ it names, GET /lambda shows both, the served one stays."""
    film = draw_video(tmp_path / "film.mp4").read_bytes()
    _put(client, 0.4)

    def ask(**fields: str) -> dict[str, Any]:
        answer = client.post(
            "/classify",
            files={"video": film},
            data={"labels": ["a red square", "a dog"], "include": "embedding", **fields},
        )
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    named, plain = ask(**{"lambda": "0.2"}), ask()
    assert (named["model"]["lambda"], plain["model"]["lambda"]) == (0.2, 0.4)
    assert named["model"]["precision"] == "float32"
    assert client.get("/lambda").json()["resident"] == [0.2, 0.4]
    _put(client, 0.2)
    assert np.allclose(ask()["embedding"], named["embedding"], atol=1e-5)


def test_a_search_never_meets_vectors_of_another_lambda(client: httpx.Client, film: Film) -> None:
    """409 names what is there; indexing again, or going back, finds the video."""
    _put(client, 0.4)
    client.post("/videos", files={"video": film()})
    _put(client, 0.6)
    for query in ({"query": "a dog"}, {"query": {"embedding": [1.0] * 16}}):
        answer = client.post("/search", json=query)
        body = answer.json()
        assert (answer.status_code, body["code"]) == (409, "index_lambda_mismatch")
        assert [space["lambda"] for space in body["spaces"]] == [0.4]
    # The text tower of this model is the same for every lambda, so one can be named.
    assert len(client.post("/search", json={"query": "a dog", "lambda": 0.4}).json()["data"]) == 1
    again = client.post("/videos", files={"video": film()})
    assert again.status_code == 200
    assert len(again.json()["spaces"]) == 2
    assert len(client.post("/search", json={"query": "a dog"}).json()["data"]) == 1
    per_index = client.get("/lambda").json()["per_index"]
    assert [space["lambda"] for space in per_index] == [0.4, 0.6]


def test_requests_go_on_while_lambda_changes(client: httpx.Client, tmp_path: Path) -> None:
    """Every answer is of one of the two, says which, and is that one's embedding."""
    film = draw_video(tmp_path / "film.mp4")
    expected = {}
    for value in (0.2, 0.8):
        _put(client, value)
        expected[value] = np.asarray(_embedding(client, film)[0])
    answers: list[tuple[list[float], float]] = []

    def ask() -> None:
        answers.extend(_embedding(client, film) for _ in range(6))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(6):
        assert _put(client, (0.2, 0.8)[number % 2]).status_code == 200
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    for embedding, named in answers:
        assert np.abs(np.asarray(embedding) - expected[named]).max() < 1e-4


def test_a_video_is_indexed_at_the_lambda_that_it_names(client: httpx.Client, film: Film) -> None:
    """Before that λ is served: searches that name it find the video, and so do all once it is."""
    for video in client.get("/videos").json()["data"]:  # of the tests above
        client.delete(f"/videos/{video['id']}")
    _put(client, 0.4)
    first = client.post("/videos", files={"video": film()}, data={"lambda": "0.6"})
    assert first.status_code == 201, first.text
    [space] = first.json()["spaces"]
    assert space.endswith("/0.6")
    assert client.get("/lambda").json()["lambda"] == 0.4
    refused = client.post("/search", json={"query": "a dog"})
    assert (refused.status_code, refused.json()["code"]) == (409, "index_lambda_mismatch")
    asked = {"query": "a dog", "lambda": 0.6}
    found = client.post("/search", json=asked).json()
    assert len(found["data"]) == 1
    embedded = {"type": "base64", "data": base64.b64encode(film()).decode()}
    vector = client.post(
        "/embeddings", json={"input": [embedded], "modality": "video", "lambda": 0.6}
    ).json()
    assert vector["space"]["lambda"] == 0.6
    _put(client, 0.6)
    assert client.post("/search", json={"query": "a dog"}).json()["data"] == found["data"]
    again = client.post("/videos", files={"video": film()}, data={"lambda": "0.4"})
    assert again.status_code == 200
    assert {name.rpartition("/")[2] for name in again.json()["spaces"]} == {"0.4", "0.6"}
