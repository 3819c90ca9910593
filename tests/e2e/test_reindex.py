"""λ moved under searches: every answer is of one space, none fails, and death delays it only."""

import functools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import load_manifest
from service.videoclip.pooling import combine_views, pool, text_classifier, unit
from service.videoclip.preprocessing import normalize
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer
from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import wait
from tests.running_service import running_service
from tests.service.processes import kill_all
from tests.service.small_artefact import Arrays, expected_text, expected_video, publish

QUERY = "a red square"
WIDTHS = range(120, 280, 20)
CLIENTS = 8


@dataclass(eq=False)
class World:
    """A store, videos, and what a search must score them at a λ."""

    folder: Path
    films: Path
    names: dict[str, int] = field(default_factory=dict)

    @functools.cache  # noqa: B019 - lives as long as the module
    def film(self, width: int) -> Path:
        """A drawn video."""
        return draw_video(self.films / f"{width}.mp4", seconds=6, width=width)

    def index(self, client: httpx.Client, width: int) -> httpx.Response:
        """Send it."""
        answer = client.post("/videos", files={"video": self.film(width).read_bytes()})
        if answer.is_success:
            self.names[answer.json()["id"]] = width
        return answer

    @functools.cache  # noqa: B019 - see there
    def expected(self, width: int, clip_weight: float, span: tuple[float, float]) -> float:
        """The cosine of a window and the query, in numpy and with nothing of the engine."""
        manifest = load_manifest(self.folder)
        arrays = self._arrays(clip_weight)
        clip = decode_clips(
            self.film(width),
            sampling=manifest.sampling.model_copy(update={"views": 1}),
            preprocessing=manifest.preprocessing,
            limits=Limits(),
            spans=[span],
        )
        frames = expected_video(normalize(clip.pixels, manifest.preprocessing), arrays)
        pooled = combine_views(pool(frames, pooling=manifest.pooling), pooling=manifest.pooling)
        return float(self._query(clip_weight) @ unit(pooled))

    @functools.cache  # noqa: B019 - see there
    def _arrays(self, clip_weight: float) -> Arrays:
        ends = [load_file(self.folder / f"weights_{end}.safetensors") for end in ("clip", "tuned")]
        merged: Mapping[str, Any] = interpolate(*ends, clip_weight=clip_weight)
        return {name: np.asarray(value, np.float32) for name, value in merged.items()}

    @functools.cache  # noqa: B019 - see there
    def _query(self, clip_weight: float) -> Any:
        manifest = load_manifest(self.folder)
        tokenizer = Tokenizer(self.folder / manifest.tokenizer, manifest.context_length)
        ids, _ = tokenizer.encode([apply(each, QUERY) for each in TEMPLATES[manifest.template_set]])
        return text_classifier(expected_text(ids, self._arrays(clip_weight))[None])[0]

    def fault(self, answer: httpx.Response) -> str | None:
        """What is wrong with the answer to a search; None: nothing."""
        if answer.status_code != 200:
            return answer.text
        body = answer.json()
        for hit in body["data"]:
            width, span = self.names.get(hit["video_id"]), (hit["start"], hit["end"])
            if width is None:  # its own answer has not come yet
                continue
            expected = self.expected(width, body["index"]["lambda"], span)
            if abs(hit["score"] - expected) > 1e-4:
                return f"{body['index']['space']}: {hit['score']}, not {expected}"
        return None if body["data"] else "no hit"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model whose texts, too, are others at another λ."""
    root = tmp_path_factory.mktemp("moved") / "model_store"
    manifest = publish(root, text_tower_tuned=True)
    return World(root / manifest.name / manifest.revision, tmp_path_factory.mktemp("films"))


def _settings(world: World) -> dict[str, str]:
    return {
        "VTAG_MODEL_STORE": str(world.folder.parent.parent),
        "VTAG_SEGMENT_SECONDS": "0.5",
        "VTAG_MAX_FRAMES": "6",  # two windows at once: more steps, to be killed in between
        "VTAG_DECODE_WORKERS": "2",
    }


def _search(client: httpx.Client) -> httpx.Response:
    body = {"query": QUERY, "group_by": "segment", "top_k": 20, "per_video": 3}
    return client.post("/search", json=body)


def _contents(client: httpx.Client) -> dict[float, int]:
    shown = client.get("/collections/default").json()["spaces"]
    return {each["lambda"]: each["videos"] for each in shown}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_lambda_moves_under_searches_that_never_pause(world: World) -> None:
    """Scores are those of the space that each answer names; what comes meanwhile is found."""
    with (
        state_folder() as state,
        running_service(state, environment=_settings(world)) as service,
        httpx.Client(base_url=service.url, timeout=90) as client,
    ):
        for width in WIDTHS:
            world.index(client, width).raise_for_status()
        seen: list[str] = []
        faults: list[str] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=90) as own:
                while not done.is_set():
                    try:
                        answer = _search(own)
                        fault = world.fault(answer)
                    except httpx.TransportError as error:
                        fault = repr(error)
                    if fault is not None:
                        faults.append(fault)
                        return
                    seen.append(answer.json()["index"]["space"])

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            _more(seen, faults)
            before = client.get("/lambda").json()["space"]
            for weight in (0.9, 0.2):
                moved = client.put("/lambda", json={"lambda": weight, "reindex": True}).json()
                width = round(400 + 100 * weight)
                late = world.index(client, width)
                assert late.status_code == 201, late.text
                job = wait(client, moved["jobs"][0])
                assert (job["status"], job["progress"]["fraction"]) == ("succeeded", 1), job
                _more(seen, faults)
                assert set(seen[-CLIENTS:]) == {moved["space"]}
                assert moved["space"] in client.get(f"/videos/{late.json()['id']}").json()["spaces"]
                by_itself = {"query": {"video_id": late.json()["id"]}, "top_k": 200}
                assert client.post("/search", json=by_itself).status_code == 200
                found = client.post("/search", json={"query": QUERY, "top_k": 200}).json()["data"]
                assert late.json()["id"] in {hit["video_id"] for hit in found}
        finally:
            done.set()
            for thread in threads:
                thread.join(100)
        assert faults == []
        assert seen[0] == before
        assert len(set(seen)) == 3
        assert "unexpected" not in service.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reindex_survives_the_death_of_everything(world: World) -> None:
    """kill -9 of all processes in the middle: searches stay where they were, then it completes."""
    with state_folder() as state:
        with running_service(state, environment=_settings(world)) as service:
            with httpx.Client(base_url=service.url, timeout=60) as client:
                for width in WIDTHS:
                    world.index(client, width).raise_for_status()
                before = _search(client).json()["index"]["space"]
                moved = client.put("/lambda", json={"lambda": 0.9, "reindex": True}).json()
                end = time.monotonic() + 60
                while not 0 < _contents(client).get(0.9, 0) < len(WIDTHS):
                    assert time.monotonic() < end, _contents(client)
            parent = psutil.Process(service.process.pid)
            kill_all([parent, *parent.children(recursive=True)])
            service.process.wait()
        with (
            running_service(state, environment=_settings(world)) as service,
            httpx.Client(base_url=service.url, timeout=60) as client,
        ):
            spaces = {_search(client).json()["index"]["space"]}
            job = wait(client, moved["jobs"][0])
            assert (job["status"], job["attempts"]) == ("succeeded", 2), job
            answer = _search(client)
            spaces.add(answer.json()["index"]["space"])
            assert spaces <= {before, moved["space"]}
            assert answer.json()["index"]["space"] == moved["space"]
            assert world.fault(answer) is None
            assert _contents(client) == {0.5: len(WIDTHS), 0.9: len(WIDTHS)}
            assert client.get("/collections/default").json()["active_space"] == moved["space"]


def _more(seen: list[str], faults: list[str], *, seconds: float = 90.0) -> None:
    """Wait for two answers more than there are clients: all of them have asked again."""
    end, wanted = time.monotonic() + seconds, len(seen) + 3 * CLIENTS
    while len(seen) < wanted:
        assert not faults, faults
        assert time.monotonic() < end, len(seen)
        time.sleep(0.02)
