"""Clients that never pause, and what became of each of their requests."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

LABELS = ("a red square", "a blue house", "some red car", "one grey cat")
"""Of one length: the small artefact's mean over tokens counts the padding, too."""


@dataclass
class Answers:
    """What clients were answered.

    Attributes:
        good: how often each space answered, with the scores that it must give.
        refused: how often each (status, code) of a problem came.
        wrong: answers that are not what their space gives.
        lost: requests without any answer.
    """

    good: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[int, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many requests have ended."""
        return self.good.total() + self.refused.total() + len(self.wrong) + len(self.lost)

    def summary(self) -> str:
        """Return what happened, in a few lines."""
        return (
            f"good {dict(self.good)}, refused {dict(self.refused)}, {len(self.wrong)} wrong"
            f" {self.wrong[:2]}, {len(self.lost)} lost {self.lost[:2]}"
        )

    def require(self, *, refusals: set[tuple[int, str]] | None = None) -> None:
        """Assert that nothing was wrong or lost, and that only these refusals were given."""
        assert not self.wrong, self.summary()
        assert not self.lost, self.summary()
        assert set(self.refused) <= (refusals or set()), self.summary()


Expect = Callable[[str], Mapping[str, float]]


def tag(url: str, film: bytes, **fields: Any) -> httpx.Response:
    """One request on a connection of its own."""
    data = {"labels": list(LABELS), "scores": "cosine", **fields}
    return httpx.post(f"{url}/classify", files={"video": film}, data=data, timeout=90)


@contextmanager
def under_load(
    url: str, film: bytes, expect: Expect, *, clients: int = 3, settle: int = 4
) -> Iterator[Answers]:
    """Keep `clients` busy with one video while the body runs, and until some more have ended.

    Args:
        url: of the service.
        film: what is sent.
        expect: space -> label -> cosine.
        clients: how many at a time.
        settle: requests that must be answered well before and after the body.
    """
    answers, lock, done = Answers(), threading.Lock(), threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer = tag(url, film)
            except httpx.TransportError as error:
                with lock:
                    answers.lost.append(repr(error))
                continue
            with lock:
                _note(answers, answer, expect)
            if answer.status_code == 503:
                time.sleep(0.1)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        _more(answers, settle)
        yield answers
        _more(answers, settle)
    finally:
        done.set()
        for thread in threads:
            thread.join(100)


def _more(answers: Answers, count: int, *, seconds: float = 90.0) -> None:
    """Wait for that many good answers from now on."""
    end, wanted = time.monotonic() + seconds, answers.good.total() + count
    while answers.good.total() < wanted:
        assert time.monotonic() < end, answers.summary()
        time.sleep(0.02)


def _note(answers: Answers, answer: httpx.Response, expect: Expect) -> None:
    body = answer.json()
    if answer.status_code != 200:
        answers.refused[answer.status_code, body["code"]] += 1
        return
    space = body["model"]["space"]
    found = {each["label"]: each["score"] for each in body["tags"]}
    if found == pytest.approx(dict(expect(space)), abs=1e-4):
        answers.good[space] += 1
    else:
        answers.wrong.append(f"{space}: {found}")


def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
