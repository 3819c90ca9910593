"""Hundreds of bad inputs while good traffic runs: each gets its answer, nothing else happens."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawn_video import draw_video
from tests.e2e.conftest import state_folder
from tests.hostile import mutations
from tests.hostile.bombardment import MORE_DESCRIPTORS, Good, Outcome, bombard, good_requests
from tests.hostile.corpus import GOOD, Bad, files, good_film
from tests.hostile.requests import requests
from tests.running_service import RunningService, running_service
from tests.service.small_artefact import publish

# The service itself takes some ten seconds for all of it; a busy machine takes longer.
pytestmark = pytest.mark.timeout(900)

_MORE_BYTES = 80 * 1024 * 1024


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that takes videos of up to a minute."""
    store = tmp_path_factory.mktemp("hostile-store") / "model_store"
    publish(store, background=tuple(f"thing {number}" for number in range(30)))
    settings = {
        "VTAG_MODEL_STORE": str(store),
        "VTAG_MAX_DURATION_SECONDS": "60",
        "VTAG_DECODE_WORKERS": "2",
    }
    with state_folder() as folder, running_service(folder, environment=settings) as running:
        yield running


@pytest.fixture(scope="module")
def good(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> list[Good]:
    """What good clients send, and the answers they get when nobody else is there."""
    folder = tmp_path_factory.mktemp("good")
    first = draw_video(folder / "first.mp4", seconds=1.0)
    second = draw_video(folder / "second.mp4", seconds=2.0, width=120, height=160)
    return good_requests(service, [first.read_bytes(), second.read_bytes()])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Bad]:
    """All bad inputs."""
    folder = tmp_path_factory.mktemp("corpus")
    return [*files(folder), *requests(good_film(folder))]


@pytest.fixture(scope="module")
def outcome(service: RunningService, good: list[Good], corpus: list[Bad]) -> Outcome:
    """The corpus was sent, after a part of it that let every process grow to its size."""
    bombard(service, corpus[::8], good)
    return bombard(service, corpus, good)


def test_the_corpus_is_large(corpus: list[Bad]) -> None:
    """At least 120 inputs that are not simply good, and no two of one name."""
    assert len({bad.name for bad in corpus}) == len(corpus)
    assert sum(bad.allowed != GOOD for bad in corpus) >= 300
    kinds = {bad.name.split()[0] for bad in corpus}
    assert {str(number) for number in (*range(11, 24), *range(27, 32), 34)} <= kinds


@pytest.mark.slow
def test_every_bad_input_gets_its_answer(outcome: Outcome) -> None:
    """Its status and code, as a problem; videos that can be watched get tags."""
    assert outcome.wrong == []
    assert outcome.codes["ok"] >= 50
    assert len(outcome.codes) >= 20


@pytest.mark.slow
def test_good_clients_notice_nothing(outcome: Outcome) -> None:
    """Their answers are those without the bad traffic, to 1e-4."""
    assert outcome.good_wrong == []
    assert outcome.good >= 10


@pytest.mark.slow
def test_no_process_but_decode_workers_is_replaced(
    service: RunningService, outcome: Outcome
) -> None:
    """The server and the encoder are the same processes; there are as many workers as before."""
    assert service.process.poll() is None
    assert outcome.after.kept == outcome.before.kept
    assert len(outcome.after.decoders) == len(outcome.before.decoders)


@pytest.mark.slow
def test_everything_is_given_back(outcome: Outcome) -> None:
    """Slots, shared memory, descriptors and files at once; memory but for what allocators keep."""
    before, after = outcome.before, outcome.after
    assert (after.slots, after.arena_bytes, after.spooled) == (0, 0, ())
    assert after.descriptors <= before.descriptors + MORE_DESCRIPTORS
    assert after.resident_bytes <= before.resident_bytes + _MORE_BYTES


def _odd_videos(shared_data: Callable[[str], Path]) -> Iterator[Bad]:
    with shared_data("videos/MANIFEST.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if not row["odd"] and not row["open_error"]:
            continue
        allowed = GOOD
        if not row["container"] and "UnicodeDecodeError" not in row["open_error"]:
            allowed = frozenset({"unsupported_container"})
        elif row["n_video"] == "0":
            allowed = frozenset({"no_video_stream"})
        elif row["decoded_frames"] == "0":
            allowed = frozenset({"no_frames"})
        data = shared_data(f"videos/{row['file']}").read_bytes()
        yield Bad(row["file"], data, allowed, row["file"])


def test_odd_videos_of_others_get_their_answers(
    service: RunningService, good: list[Good], shared_data: Callable[[str], Path]
) -> None:
    """Real files that broke other software: tags, or the reason why there are none."""
    odd = list(_odd_videos(shared_data))
    found = bombard(service, odd, good)
    assert len(odd) >= 15
    assert found.wrong == []
    assert found.good_wrong == []
    assert found.after.kept == found.before.kept
    assert (found.after.slots, found.after.spooled) == (0, ())


def test_the_generator_is_deterministic(tmp_path: Path) -> None:
    """A seed gives the same files, so a failure can be looked at again; another seed others."""
    film = good_film(tmp_path)
    assert list(mutations.flips(film, seed=1, count=3)) == list(
        mutations.flips(film, seed=1, count=3)
    )
    assert list(mutations.flips(film, seed=1, count=3)) != list(
        mutations.flips(film, seed=2, count=3)
    )


def test_the_generator_knows_every_box(tmp_path: Path) -> None:
    """The boxes of a film cover it, and each is cut, removed and made to lie."""
    film = good_film(tmp_path)
    found = mutations.boxes(film)
    top = [box for box in found if not box.parents]
    assert sum(box.end - box.start for box in top) == len(film)
    kinds = {box.kind for box in found}
    assert {b"ftyp", b"moov", b"mdat", b"stsd", b"stsz", b"stts", b"stco", b"mdhd"} <= kinds
    assert len(list(mutations.truncations(film))) == 2 * len(found) - 1
    assert len(list(mutations.removals(film))) == len(found)
    for _, spoiled in mutations.removals(film):
        assert len(spoiled) < len(film)
        assert sum(b.end - b.start for b in mutations.boxes(spoiled) if not b.parents) == len(
            spoiled
        )
