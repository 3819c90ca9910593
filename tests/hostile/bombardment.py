"""Bad inputs against one running service, while good traffic goes on; what came of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from service.errors import PROBLEMS
from tests.hostile.corpus import LABELS, OK, Bad
from tests.running_service import RunningService

_SENDERS = 4
_SECONDS = 300.0
MORE_DESCRIPTORS: Final = 7
"""The pool of connections to Postgres grows from one to eight when it is busy; nothing else may."""

_ACCURACY = 1e-4


@dataclass(frozen=True)
class State:
    """What a service holds: processes by what they run, memory, descriptors, frames, files."""

    kept: frozenset[int]  # process ids, without those of decode workers
    decoders: frozenset[int]
    resident_bytes: int
    descriptors: int
    slots: float
    arena_bytes: float
    spooled: tuple[str, ...]


@dataclass
class Outcome:
    """What was not as it must be, and how the service was before and afterwards."""

    before: State
    after: State
    sent: int
    good: int
    wrong: list[str] = field(default_factory=list)
    good_wrong: list[str] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Good:
    """One kind of good request and the answer it had when it was alone."""

    film: bytes
    data: dict[str, Any]
    reference: dict[str, Any]


def good_requests(service: RunningService, films: Sequence[bytes]) -> list[Good]:
    """Ask each once, plainly and in segments, and keep the answers."""
    ways: list[dict[str, Any]] = [
        {"labels": LABELS},
        {"labels": LABELS, "scores": "cosine", "segments": json.dumps({"length": 0.5})},
    ]
    found = []
    with httpx.Client(base_url=service.url, timeout=_SECONDS) as client:
        for film in films:
            for data in ways:
                answer = client.post("/classify", files={"video": film}, data=data)
                assert answer.status_code == 200, answer.text
                found.append(Good(film, data, answer.json()))
    return found


def bombard(service: RunningService, inputs: Sequence[Bad], good: Sequence[Good]) -> Outcome:
    """Send `inputs` from a few clients while two others send good requests without a pause."""
    before = settled(service, lambda _: True)
    outcome = Outcome(before, before, sent=len(inputs), good=0)
    done = threading.Event()
    watchers = [
        threading.Thread(target=_keep_asking, args=(service, good, number, outcome, done))
        for number in range(2)
    ]
    for watcher in watchers:
        watcher.start()
    try:
        with ThreadPoolExecutor(_SENDERS) as senders:
            for bad, (code, wrong) in zip(
                inputs, senders.map(lambda bad: _send(service, bad), inputs), strict=True
            ):
                outcome.codes[code] = outcome.codes.get(code, 0) + 1
                if wrong:
                    outcome.wrong.append(f"{bad.name}: {wrong}")
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
    outcome.after = settled(service, lambda state: is_back(before, state))
    return outcome


def is_back(before: State, after: State) -> bool:
    """Whether nothing is left of the work: no frame, no file, no descriptor, as many workers."""
    return (
        after.slots == after.arena_bytes == 0
        and not after.spooled
        and after.descriptors <= before.descriptors + MORE_DESCRIPTORS
        and len(after.decoders) == len(before.decoders)
    )


def settled(
    service: RunningService, is_settled: Callable[[State], bool], *, seconds: float = 90.0
) -> State:
    """Look until `is_settled`, or until the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        state = look(service)
        if is_settled(state) or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def look(service: RunningService) -> State:
    """What the service holds now."""
    server = psutil.Process(service.process.pid)
    kept: set[int] = {server.pid}
    decoders: set[int] = set()
    resident, descriptors = 0, 0
    for process in [server, *server.children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            if "postgres" in command:
                continue  # it keeps connections and buffers as it likes
            resident += process.memory_info().rss
            descriptors += process.num_fds()
            (decoders if "service.decode.worker" in command else kept).add(process.pid)
        except psutil.NoSuchProcess:
            continue
    with httpx.Client(base_url=service.url, timeout=60) as client:
        metrics = client.get("/metrics").text
    return State(
        kept=frozenset(kept),
        decoders=frozenset(decoders),
        resident_bytes=resident,
        descriptors=descriptors,
        slots=_metric(metrics, 'vtag_frame_slots{state="in_use"}'),
        arena_bytes=_metric(metrics, 'vtag_frame_arena_bytes{kind="resident"}'),
        spooled=_files(service.log.parent / "data" / "spool"),
    )


def _send(service: RunningService, bad: Bad) -> tuple[str, str]:
    """The code of the answer (`OK` for tags), and what is wrong with it, if anything is."""
    files = {"video": (bad.file_name, bad.data, bad.content_type)}
    with httpx.Client(base_url=service.url, timeout=_SECONDS) as client:
        answer = client.post("/classify", files=files, data=bad.form)
    if answer.status_code == 200:
        body = answer.json()
        scores = [tag["score"] for tag in body["tags"]]
        sound = len(body["tags"]) >= 1 and all(-1 <= score <= 1 for score in scores)
        wrong = "" if sound else f"tags that cannot be: {body['tags']}"
        code = OK
    else:
        body = answer.json()
        code = body["code"]
        kind = answer.headers["content-type"]
        is_problem = kind == "application/problem+json" and body["request_id"]
        fits = answer.status_code == PROBLEMS[code].status and is_problem
        wrong = "" if fits else f"{answer.status_code} {kind} {body}"
    if code not in bad.allowed:
        wrong = f"{answer.status_code} {code}, allowed: {sorted(bad.allowed)}"
    return code, wrong


def _keep_asking(
    service: RunningService,
    good: Sequence[Good],
    number: int,
    outcome: Outcome,
    done: threading.Event,
) -> None:
    with httpx.Client(base_url=service.url, timeout=_SECONDS) as client:
        while not done.is_set():
            number += 1
            each = good[number % len(good)]
            try:
                answer = client.post("/classify", files={"video": each.film}, data=each.data)
            except httpx.HTTPError as error:
                outcome.good_wrong.append(repr(error))
                continue
            outcome.good += 1
            if answer.status_code != 200:
                outcome.good_wrong.append(f"{answer.status_code} {answer.text[:300]}")
            elif not same(answer.json(), each.reference):
                outcome.good_wrong.append(f"another answer: {answer.text[:300]}")


def same(answer: dict[str, Any], reference: dict[str, Any]) -> bool:
    """Whether two answers say the same about a video: labels, scores, times, warnings."""
    parts = [(answer, reference)]
    if reference["segments"] is not None:
        parts += list(zip(answer["segments"] or [], reference["segments"], strict=True))
    return answer["video"] == reference["video"] and all(
        one["warnings"] == other["warnings"]
        and {tag["label"] for tag in one["tags"]} == {tag["label"] for tag in other["tags"]}
        and all(abs(_score(one, tag["label"]) - tag["score"]) <= _ACCURACY for tag in other["tags"])
        for one, other in parts
    )


def _score(part: dict[str, Any], label: str) -> float:
    (score,) = [float(tag["score"]) for tag in part["tags"] if tag["label"] == label]
    return score


def _metric(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.rsplit(" ", 1)[1])


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.rglob("*") if path.is_file()))
