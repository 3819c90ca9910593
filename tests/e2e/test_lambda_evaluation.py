"""Lambda measured on a labelled set over HTTP: as offline, without a trace in what is served."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store import ArtefactStore
from tests.conftest import REPOSITORY
from tests.e2e.labelled_videos import draw_set, pack, send, wait, wait_until_gone
from tests.running_service import RunningService, running_service
from training.data.annotations import LabelledVideo
from training.evaluate.artefact import PublishedModel

STORE = REPOSITORY / "model_store"
SAMPLES = sorted((REPOSITORY / "deploy" / "samples").glob("*.mp4"))
NAMES = {path: path.stem.replace("-", " ") for path in SAMPLES}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The folder of labelled sets that the service may read."""
    with tempfile.TemporaryDirectory(prefix="vtag-sets-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[RunningService]:
    """A service with the demo model."""
    settings = {
        "VTAG_MODEL_STORE": str(STORE),
        "VTAG_EVALUATION_ROOT": str(root),
        "VTAG_EVALUATION_CACHE_BYTES": "400000",  # groups of a few videos
        "VTAG_SEGMENT_SECONDS": "1",
    }
    with (
        tempfile.TemporaryDirectory(prefix="vtag-e2e-") as folder,
        running_service(Path(folder), environment=settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledVideo]:
    """Videos that pull lambda both ways: some verbs, some textures."""
    folder = tmp_path_factory.mktemp("drawn")
    return draw_set(folder, names=("source", "unseen-attributes"), count=12)


def _material(service: RunningService, job_id: str) -> Path:
    return service.log.parent / "data" / "jobs" / job_id


def _answer(client: httpx.Client) -> bytes:
    """What the served lambda says of a sample, to the last digit."""
    body = client.post(
        "/classify",
        files={"video": SAMPLES[0].read_bytes()},
        data={"labels": list(NAMES.values()), "include": "embedding"},
    ).json()
    return json.dumps([body["tags"], body["embedding"], body["model"]]).encode()


def _classes(videos: list[LabelledVideo]) -> list[str]:
    return sorted({video.label or "" for video in videos})


def _offline(videos: list[LabelledVideo], lambdas: list[float]) -> dict[float, tuple[float, float]]:
    """Top-1 and top-5 in %, computed from the published files without the service."""
    manifest = ArtefactStore(STORE).active()
    folder = ArtefactStore(STORE).folder(manifest.name, manifest.revision)
    classes = _classes(videos)
    frames = PublishedModel(folder).decode(videos).frames
    found = {}
    for value in lambdas:
        model = PublishedModel(folder, clip_weight=value, threads=1)
        scores = model.embed(frames) @ model.classifier(classes).T
        hits = [0, 0]
        for row, video in zip(scores, videos, strict=True):
            right = row[classes.index(video.label or "")]
            others = int((row >= right).sum()) - 1
            hits[0] += others < 1
            hits[1] += others < 5
        top1, top5 = (round(100 * count / len(videos), 4) for count in hits)
        found[value] = (top1, top5)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_recommended_lambda_is_that_of_an_offline_sweep(
    client: httpx.Client, service: RunningService, videos: list[LabelledVideo]
) -> None:
    """Same curve at all lambdas, same choice; the served answers are byte-equal all the while."""
    before = _answer(client)
    etag = client.get("/lambda").headers["etag"]
    broken = {"set/3/broken.mp4": b"no video"}
    listed = pack(videos, more=broken)
    sent = send(client, listed)
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["id"]
    assert sent.headers["location"] == f"/jobs/{job_id}"
    during = _answer(client)
    job = wait(client, job_id)
    assert job["status"] == "succeeded", job["error"]
    assert (job["progress"]["fraction"], job["attempts"], job["kind"]) == (1, 1, "evaluate_lambda")
    result = job["result"]
    lambdas = [point["lambda"] for point in result["points"]]
    assert lambdas == [round(tenth / 10, 4) for tenth in range(11)]
    offline = _offline(videos, lambdas)
    served = {point["lambda"]: (point["top1"], point["top5"]) for point in result["points"]}
    assert served == offline
    best = max(offline, key=lambda value: (offline[value][0], value))
    assert result["recommended"]["lambda"] == best
    assert f"{offline[best][0]:.1f} %" in result["recommended"]["why"]
    assert (result["videos"], result["skipped"]) == (len(videos), [])
    assert sum(each["videos"] for each in result["points"][0]["classes"]) == len(videos)
    assert during == before == _answer(client)
    assert client.get("/lambda").headers["etag"] == etag
    wait_until_gone(_material(service, job_id))


def test_what_cannot_be_decoded_is_listed_and_skipped(client: httpx.Client) -> None:
    """A broken file in a good set costs itself only, and stays one of the classes."""
    files = [("video", (path.name, path.read_bytes())) for path in SAMPLES]
    files.insert(1, ("video", ("broken.mp4", b"not a film")))
    labels = {path.name: name for path, name in NAMES.items()} | {"broken.mp4": "a cloud"}
    options = {"labels": json.dumps(labels), "lambdas": ["0.5", "0.7"]}
    job = wait(client, client.post("/lambda/evaluate", files=files, data=options).json()["id"])
    result = job["result"]
    [skipped] = result["skipped"]
    assert (skipped["video"], skipped["code"]) == ("broken.mp4", "unsupported_container")
    assert result["videos"] == len(SAMPLES)
    assert "a cloud" in result["classes"]
    assert [point["top1"] for point in result["points"]] == [100.0, 100.0]
    assert result["recommended"]["lambda"] == 0.7
    assert "2 lambdas are equal" in result["recommended"]["why"]


def test_a_floor_that_no_lambda_reaches_recommends_none(
    client: httpx.Client, videos: list[LabelledVideo]
) -> None:
    """The curve is there all the same, and the reason says how far it got."""
    rule = {"floor": {"metric": "worst_class", "at_least": 100}}
    files = [("video", (video.path.name, video.path.read_bytes())) for video in videos[:4]]
    options = {
        "labels": json.dumps([videos[0].label] * 4),  # wrong for three of them
        "classes": _classes(videos),
        "lambdas": ["0.5"],
        "rule": json.dumps(rule),
    }
    job = wait(client, client.post("/lambda/evaluate", files=files, data=options).json()["id"])
    assert job["result"]["recommended"]["lambda"] is None
    assert "No lambda reaches" in job["result"]["recommended"]["why"]


@pytest.mark.parametrize("labels", ["array", "csv"])
def test_videos_and_labels_may_come_apart(client: httpx.Client, labels: str) -> None:
    """A JSON array in the order of the videos, or CSV by their names, even as a file."""
    files: list[tuple[str, Any]] = [("video", (path.name, path.read_bytes())) for path in SAMPLES]
    data = {"lambdas": "0.5", "classes": [*NAMES.values(), "rain"]}
    if labels == "array":
        data["labels"] = json.dumps(list(NAMES.values()))
    else:
        rows = "".join(f"{path.name},{name}\n" for path, name in NAMES.items())
        files.append(("labels", ("labels.csv", f"path,label\n{rows}".encode())))
    sent = client.post("/lambda/evaluate", files=files, data=data)
    assert sent.status_code == 202, sent.text
    [point] = wait(client, sent.json()["id"])["result"]["points"]
    assert (point["lambda"], point["top1"]) == (0.5, 100.0)


def test_a_folder_of_the_server_and_videos_of_the_index(client: httpx.Client, root: Path) -> None:
    """Both are pointed to instead of sent; the index knows the lambdas it was filled at."""
    for path, name in NAMES.items():
        (root / "samples" / name).mkdir(parents=True)
        (root / "samples" / name / path.name).write_bytes(path.read_bytes())
    sent = client.post("/lambda/evaluate", json={"folder": "samples", "lambdas": [0.7]})
    assert sent.status_code == 202, sent.text
    by_folder = wait(client, sent.json()["id"])["result"]
    assert by_folder["points"][0]["top1"] == 100.0
    assert sorted((root / "samples").rglob("*.mp4"))  # the operator's files are left alone
    labelled = []
    for path, name in NAMES.items():
        stored = client.post("/videos", files={"video": path.read_bytes()}).json()
        labelled.append({"id": stored["id"], "label": name})
    served = client.get("/lambda").json()["lambda"]
    sent = client.post("/lambda/evaluate", json={"videos": labelled})
    result = wait(client, sent.json()["id"])["result"]
    assert (result["source"], result["videos"]) == ("index", len(SAMPLES))
    assert [point["lambda"] for point in result["points"]] == [served]
    refused = client.post("/lambda/evaluate", json={"videos": labelled, "lambdas": [0.123]})
    body = refused.json()
    assert (refused.status_code, body["code"]) == (409, "index_lambda_mismatch")
    assert (body["param"], body["limit"], body["actual"]) == ("lambdas", [f"{served:g}"], 0.123)


def test_the_curve_of_training_is_shown_with_the_chosen_point(client: httpx.Client) -> None:
    """Active and default lambda, the rule as a sentence, means and spread, one point chosen."""
    body = client.get("/lambda").json()
    manifest = ArtefactStore(STORE).active()
    assert body["default"] == manifest.default_clip_weight
    assert body["selection"] == {"chosen": body["default"], "why": manifest.clip_weight_rule}
    assert [p["lambda"] for p in body["metrics"] if p["chosen"]] == [body["default"]]
    assert [p["lambda"] for p in body["metrics"] if p["served"]] == [body["lambda"]]
    for shown, point in zip(body["metrics"], manifest.curve, strict=True):
        assert (shown["scores"], shown["spread"]) == (point.scores, point.spread)
