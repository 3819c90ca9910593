"""Keys of several clients: they come and go while the service runs, and none starves another."""

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.api_keys import new_key
from tests.faults.load import until
from tests.running_service import RunningService, running_service

Film = Callable[..., bytes]


def _status(service: RunningService, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{service.url}/version", headers=headers, timeout=60).status_code


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_keys_change_without_a_restart(small_store: Path, state: Path) -> None:
    """A new file counts by itself and on SIGHUP; a broken one is a line, and changes nothing."""
    (one, one_lines), (two, two_lines) = new_key("one"), new_key("two")
    keys = state / "keys.toml"
    keys.write_text(one_lines)
    settings = {"VTAG_MODEL_STORE": str(small_store), "VTAG_API_KEYS_FILE": str(keys)}
    with running_service(state, environment=settings) as service:
        assert (_status(service, one), _status(service, two)) == (200, 401)
        _replace(keys, f"{one_lines}\n{two_lines}")
        until(lambda: _status(service, two) == 200)
        _replace(keys, "[keys.broken")
        service.process.send_signal(signal.SIGHUP)
        until(lambda: "the keys from before stay" in service.log.read_text())
        assert (_status(service, one), _status(service, two)) == (200, 200)
        _replace(keys, two_lines)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: _status(service, one) == 401)
        assert _status(service, two) == 200
        assert service.process.poll() is None
    log = service.log.read_text()
    assert one not in log
    assert two not in log


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flood_under_one_key_does_not_starve_another(
    small_store: Path, state: Path, film: Film
) -> None:
    """Sixteen clients of one key against one of another: it is always let in, and gets its share.

    What the crowd gets meanwhile is bounded by its quota: so many requests at once, and so about so
    many answers for each of the other's, however fast or slow the machine is.
    """
    at_once = 4
    (crowd, crowd_lines), (quiet, quiet_lines) = new_key("crowd"), new_key("quiet")
    keys = state / "keys.toml"
    keys.write_text(f"{crowd_lines}\nconcurrent = {at_once}\n{quiet_lines}\n")
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_API_KEYS_FILE": str(keys),
        "VTAG_DECODE_WORKERS": "1",
        "VTAG_MAX_IN_FLIGHT": "8",
    }
    content, done = film(), threading.Event()
    seen: Counter[tuple[int, str]] = Counter()
    lock = threading.Lock()

    with running_service(state, environment=settings) as service:

        def ask(key: str) -> httpx.Response:
            return httpx.post(
                f"{service.url}/classify",
                files={"video": content},
                data={"labels": ["a", "b"]},
                headers={"X-API-Key": key},
                timeout=120,
            )

        def flood() -> None:
            while not done.is_set():
                answer = ask(crowd)
                code = "" if answer.is_success else str(answer.json()["code"])
                assert answer.is_success or answer.headers["retry-after"]
                with lock:
                    seen[answer.status_code, code] += 1
                done.wait(0.02)

        threads = [threading.Thread(target=flood) for _ in range(16)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: seen[429, "too_many_at_once"] >= 5 and seen[200, ""] >= 5, seconds=120)
            before = seen[200, ""]
            answers = [ask(quiet) for _ in range(20)]
            during = seen[200, ""] - before
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert [answer.status_code for answer in answers] == [200] * 20
        assert set(seen) <= {(200, ""), (429, "too_many_at_once")}
        assert during <= 3 * at_once * len(answers), f"{during} of the crowd beside 20"
