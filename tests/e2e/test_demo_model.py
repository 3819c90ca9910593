"""The committed demo model, served as a newcomer serves it, keeps the promises of its card."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.store import ArtefactStore
from service.videoclip.manifest import Manifest
from tests.conftest import REPOSITORY
from tests.e2e.conftest import make_client
from training.data.annotations import LabelledVideo, read_video_list
from training.data.motion_world import files, sets
from training.data.motion_world.drawing import Camera
from training.evaluate.artefact import PublishedModel

STORE = REPOSITORY / "model_store"
SAMPLES = REPOSITORY / "deploy" / "samples"
UNUSED_SEED = 20_260  # no configuration of the demo draws from it
VIDEOS = 40
CANDIDATES = 20


@dataclass(frozen=True)
class Quiz:
    """A video and the labels to choose from; the right one is among them."""

    video: LabelledVideo
    labels: tuple[str, ...]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of a service with the repository's own model store."""
    with make_client({"VTAG_MODEL_STORE": str(STORE)}) as client:
        yield client


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The manifest of the demo model."""
    return ArtefactStore(STORE).active()


@pytest.fixture(scope="module")
def quizzes(tmp_path_factory: pytest.TempPathFactory) -> list[Quiz]:
    """Videos of the source classes that no training saw, each with 20 labels in plain words."""
    folder = tmp_path_factory.mktemp("unused")
    classes = sets.labels("source")
    examples = list(sets.examples("source", "test", count=VIDEOS, seed=UNUSED_SEED))
    files.write_set(folder, examples, camera=Camera(), processes=2, title="draw")
    rng = np.random.default_rng(0)
    quizzes = []
    for video in read_video_list(folder / files.LIST_NAME):
        others = [label for label in classes if label != video.label]
        chosen = [video.label, *rng.choice(others, CANDIDATES - 1, replace=False)]
        rng.shuffle(chosen)
        quizzes.append(Quiz(video, tuple(str(label) for label in chosen)))
    return quizzes


def _classify(client: httpx.Client, path: Path, labels: Sequence[str]) -> list[str]:
    """Labels, best first."""
    with path.open("rb") as file:
        answer = client.post("/classify", files={"video": file}, data={"labels": list(labels)})
    assert answer.status_code == 200, answer.text
    return [tag["label"] for tag in answer.json()["tags"]]


@pytest.mark.timeout(300)
def test_the_right_label_comes_first_as_often_as_measured(
    client: httpx.Client, quizzes: list[Quiz], manifest: Manifest
) -> None:
    """Among 20 labels through HTTP: what the evaluation computes, and at least the card's figure.

    The card's figure is among 64 labels, so 20 are no harder; 40 videos are given three standard
    errors of slack.
    """
    folder = ArtefactStore(STORE).folder(manifest.name, manifest.revision)
    model = PublishedModel(folder)
    right = 0
    for quiz in quizzes:
        served = _classify(client, quiz.video.path, quiz.labels)
        offline = model.decode([quiz.video])
        scores = model.embed(offline.frames)[0] @ model.classifier(quiz.labels).T
        assert served[0] == quiz.labels[int(scores.argmax())]
        right += served[0] == quiz.video.label
    (point,) = [p for p in manifest.curve if p.clip_weight == manifest.default_clip_weight]
    expected = point.scores["source"] / 100
    slack = 3 * (expected * (1 - expected) / VIDEOS) ** 0.5
    assert right / VIDEOS >= expected - slack


def test_the_samples_are_what_their_names_say(client: httpx.Client) -> None:
    """Each sample of the repository gets its own name as the first tag among all of them."""
    names = {path: path.stem.replace("-", " ") for path in sorted(SAMPLES.glob("*.mp4"))}
    assert len(names) >= 3
    for path, name in names.items():
        assert _classify(client, path, list(names.values()))[0] == name


def test_search_finds_a_sample_by_its_name(client: httpx.Client) -> None:
    """Text finds the right one of the indexed clips, with start and end."""
    ids = {}
    for path in sorted(SAMPLES.glob("*.mp4")):
        with path.open("rb") as file:
            answer = client.post("/videos", files={"video": file})
        assert answer.status_code == 201, answer.text
        ids[answer.json()["id"]] = path.stem.replace("-", " ")
    for name in ids.values():
        (best, *_) = client.post("/search", json={"query": name}).json()["data"]
        assert ids[best["video_id"]] == name
        assert 0.0 <= best["start"] < best["end"] <= 2.1


def test_the_demo_fits_its_promises(manifest: Manifest) -> None:
    """At most 12 MB, a whole λ curve, a rule that chose, and figures of the issue's size."""
    folder = ArtefactStore(STORE).folder(manifest.name, manifest.revision)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    assert [p.clip_weight for p in manifest.curve] == [round(i / 10, 4) for i in range(11)]
    assert manifest.clip_weight_rule
    assert {p.clip_weight for p in manifest.parity} >= {0.0, 0.5, 1.0}
