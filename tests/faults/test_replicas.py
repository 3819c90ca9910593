"""Two services over one Postgres, Redis and folder of videos: nothing is lost, nothing is twice."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
import pytest

from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.e2e.labelled_videos import wait
from tests.faults.conftest import create_database
from tests.faults.load import until
from tests.faults.uploads import Film, Ledger, draw_film, listed, require_whole
from tests.redis_server import RedisServer
from tests.running_service import RunningService, running_service
from tests.service.processes import kill_all
from tests.service.small_artefact import publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_SEGMENT_SECONDS = 0.2
_FILMS = 32
_CLIENTS = 4


@dataclass
class Replicas:
    """Two services with folders of their own, and everything else in common."""

    folders: list[Path]
    settings: Mapping[str, str]
    media: Path
    films: Path
    ledger: Ledger = field(default_factory=Ledger)
    services: dict[int, RunningService] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def urls(self) -> list[str]:
        """Where they listen."""
        return [self.services[number].url for number in (0, 1)]

    def start(self, number: int) -> None:
        """Start one, in the folder that it had before."""
        self.services[number] = self._stack.enter_context(
            running_service(self.folders[number], environment=self.settings)
        )

    def kill(self, number: int) -> None:
        """kill -9 of one and all its children."""
        process = self.services[number].process
        parent = psutil.Process(process.pid)
        kill_all([parent, *parent.children(recursive=True)])
        process.wait()

    def film(self) -> Film:
        """A film that is like no other."""
        return draw_film(self.films, next(self._numbers), segment_seconds=_SEGMENT_SECONDS)

    def close(self) -> None:
        """Stop both."""
        self._stack.close()


@pytest.fixture(scope="module")
def replicas(postgres_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Both begin at the same time on an empty database: one takes its steps, the other waits."""
    name = f"replicas_{os.getpid()}"
    asyncio.run(create_database(postgres_cluster, name))
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("replicas")
        publish(folder / "store")
        redis = RedisServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(redis.close)
        found = Replicas(
            folders=[stack.enter_context(state_folder()) for _ in range(2)],
            settings={
                "VTAG_MODEL_STORE": str(folder / "store"),
                "VTAG_DATABASE_URL": postgres_cluster.replace("/postgres?", f"/{name}?", 1),
                "VTAG_REDIS_URL": redis.url,
                "VTAG_MEDIA_URL": str(folder / "media"),
                "VTAG_DECODE_WORKERS": "2",
                "VTAG_ENCODER_THREADS": "1",
                "VTAG_SEGMENT_SECONDS": str(_SEGMENT_SECONDS),
            },
            media=folder / "media",
            films=tmp_path_factory.mktemp("films"),
        )
        stack.callback(found.close)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(found.start, (0, 1)))
        yield found


def _send(film: Film, url: str) -> httpx.Response:
    return film.send(url)


def _search(url: str) -> set[str]:
    answer = httpx.post(f"{url}/search", json={"query": "a", "top_k": 1000}, timeout=120)
    assert answer.status_code == 200, answer.text
    return {hit["video_id"] for hit in answer.json()["data"]}


def test_the_same_video_sent_to_both_at_once_is_one_video(replicas: Replicas) -> None:
    """With a key one does it and the other says so; without one both answer with the same video."""
    for _ in range(6):
        film = replicas.film()
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(_send, (film, film), replicas.urls))
        good = [answer for answer in answers if answer.is_success]
        for answer in answers:
            if not answer.is_success:
                assert film.headers
                assert (answer.status_code, answer.json()["code"]) == (409, "request_in_progress")
                assert answer.headers["retry-after"]
        assert len(good) == 2 or film.headers
        assert len({answer.json()["id"] for answer in good}) == 1
        created = [answer for answer in good if answer.status_code == 201]
        replayed = [answer for answer in created if "idempotent-replayed" in answer.headers]
        assert len(created) - len(replayed) == 1
        replicas.ledger.sent[film.sha256] = film
        replicas.ledger.acknowledged[film.sha256] = good[0].json()
    for url in replicas.urls:
        require_whole(url, replicas.ledger, deeply=True)


def test_a_retry_at_the_other_replica_gets_the_answer_of_the_first(replicas: Replicas) -> None:
    """Word for word, marked as given before; another body under the key is refused there, too."""
    first, second = replicas.urls
    film = next(film for film in iter(replicas.film, None) if film.headers)
    other = replace(film, data=replicas.film().data)
    replicas.ledger.send(film, first)
    assert replicas.ledger.pending == []
    again = film.send(second)
    assert again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == replicas.ledger.acknowledged[film.sha256]
    refused = other.send(second)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


def test_what_one_changes_the_other_knows(replicas: Replicas) -> None:
    """Deleted here, gone there, with its bytes and pictures; metadata changed here, read there."""
    first, second = replicas.urls
    data = draw_video(replicas.films / "passing.mp4", seconds=1.5).read_bytes()
    video = httpx.post(f"{first}/videos", files={"video": data}, timeout=120).json()
    path = f"/videos/{video['id']}"
    assert httpx.get(f"{second}{path}/thumbnail", timeout=120).status_code == 200
    changed = httpx.patch(
        f"{second}{path}",
        json={"metadata": {"a": 1}},
        headers={"If-Match": video["etag"]},
        timeout=60,
    )
    assert changed.status_code == 200, changed.text
    stale = httpx.patch(
        f"{first}{path}",
        json={"metadata": {"a": 2}},
        headers={"If-Match": video["etag"]},
        timeout=60,
    )
    assert stale.status_code == 412
    assert httpx.delete(f"{first}{path}", timeout=60).is_success
    for what in ("", "/content", "/thumbnail"):
        assert httpx.get(f"{second}{path}{what}", timeout=60).status_code == 404
    assert video["id"] not in _search(second)
    assert not list(replicas.media.rglob(video["sha256"]))


def test_a_collection_that_was_moved_is_searched_and_filled_alike_by_both(
    replicas: Replicas,
) -> None:
    """Lambda is each replica's own; with reindex one moves the collection for all of them."""
    first, second = replicas.urls
    before = httpx.get(f"{second}/lambda", timeout=60).json()["lambda"]
    changed = httpx.put(f"{first}/lambda", json={"lambda": 0.25, "reindex": True}, timeout=120)
    assert changed.status_code == 200, changed.text
    with httpx.Client(base_url=second, timeout=60) as client:
        for job in changed.json()["jobs"]:  # seen from the other
            assert wait(client, job)["status"] == "succeeded"
    assert httpx.get(f"{second}/lambda", timeout=60).json()["lambda"] == before
    spaces = []
    for url in replicas.urls:
        film = replicas.film()
        replicas.ledger.send_until_told(film, [url])
        spaces.append(replicas.ledger.acknowledged[film.sha256]["spaces"])
    assert spaces[0] == spaces[1]
    known = {video["id"] for video in listed(first)}
    assert _search(first) == _search(second) == known


def test_one_is_killed_in_a_storm_and_nothing_is_lost(replicas: Replicas) -> None:
    """Clients go round; what was acknowledged stays, what was not is sent to the other, once."""
    ledger = replicas.ledger
    films = [replicas.film() for _ in range(_FILMS)]
    before = len(ledger.acknowledged)

    def send(position: int) -> None:
        urls = replicas.urls  # the dead one's, too: the client finds out
        ledger.send_until_told(films[position], [urls[position % 2], urls[(position + 1) % 2]])

    with ThreadPoolExecutor(_CLIENTS) as pool:
        sending = [pool.submit(send, position) for position in range(_FILMS)]
        until(lambda: len(ledger.acknowledged) - before >= _FILMS // 3)
        replicas.kill(0)
        survived = replicas.urls[1]
        for each in sending:
            each.result()
    assert ledger.pending == []
    require_whole(survived, ledger, deeply=True)
    replicas.start(0)
    for url in replicas.urls:
        require_whole(url, ledger, deeply=True)
    until(lambda: _names(replicas.media) == set(ledger.sent), seconds=120)


def _names(media: Path) -> set[str]:
    return {path.name for path in media.rglob("*") if path.is_file()} - {"owner"}
