"""Clients that index videos, keep what they were told, and send again what nobody acknowledged."""

import hashlib
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.drawn_video import draw_video

TRANSIENT = {
    (409, "request_in_progress"),
    (503, "index_unavailable"),
    (503, "media_unavailable"),
    (503, "not_ready"),
    (503, "shutting_down"),
    (503, "saturated"),
    (429, "saturated"),
}
"""Problems after which a client sends the same again, with the same key."""


@dataclass(frozen=True)
class Film:
    """A video that a client sends, always with the same words and the same key.

    Attributes:
        number: of this film; no two have the same.
        data: the file.
        segments: that it is cut into.
    """

    number: int
    data: bytes
    segments: int

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def external_id(self) -> str | None:
        """Every third has none."""
        return None if self.number % 3 == 2 else f"film-{self.number}"

    @property
    def headers(self) -> Mapping[str, str]:
        """Every third has no key."""
        return {} if self.number % 3 == 1 else {"Idempotency-Key": f"key-{self.number}"}

    def send(self, url: str, *, seconds: float = 120.0) -> httpx.Response:
        """Index it, on a connection of its own."""
        fields = {} if self.external_id is None else {"external_id": self.external_id}
        return httpx.post(
            f"{url}/videos",
            files={"video": self.data},
            data=fields,
            headers=self.headers,
            timeout=seconds,
        )


def draw_film(folder: Path, number: int, *, segment_seconds: float) -> Film:
    """Draw a film that is like no other: its size and length follow from its number."""
    fps, frames = 10, 6 + number // 50
    path = draw_video(
        folder / f"{number}.mp4", seconds=frames / fps, fps=fps, width=64 + 2 * (number % 50),
        height=48,
    )  # fmt: skip
    return Film(number, path.read_bytes(), -(-frames // round(segment_seconds * fps)))


@dataclass
class Ledger:
    """What clients sent and what they were told.

    Attributes:
        sent: digest -> film, of all that was sent.
        acknowledged: digest -> the answer.
        wrong: answers that a client cannot make sense of.
    """

    sent: dict[str, Film] = field(default_factory=dict)
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pending(self) -> list[Film]:
        """What was sent and not acknowledged."""
        return [film for sha256, film in self.sent.items() if sha256 not in self.acknowledged]

    def send(self, film: Film, url: str) -> bool:
        """Send a film once; tell whether it was acknowledged."""
        with self._lock:
            self.sent[film.sha256] = film
        try:
            answer = film.send(url)
        except httpx.TransportError:
            return False
        with self._lock:
            return self._note(film, answer)

    def send_all(self, films: list[Film], url: str) -> None:
        """Send them at the same time; return when each was answered or cut off."""
        with ThreadPoolExecutor(max(1, len(films))) as pool:
            list(pool.map(lambda film: self.send(film, url), films))

    def settle(self, url: str, *, seconds: float = 120.0) -> None:
        """Send everything that is pending until it is acknowledged."""
        end = time.monotonic() + seconds
        while (rest := self.pending) and not self.wrong:
            assert time.monotonic() < end, f"{len(rest)} are never acknowledged"
            self.send_all(rest, url)
            time.sleep(0.2)  # as Retry-After asks, or sooner

    def send_until_told(self, film: Film, urls: Sequence[str], *, seconds: float = 120.0) -> None:
        """Send a film to one service after the other until one acknowledges it."""
        end = time.monotonic() + seconds
        for url in itertools.cycle(urls):
            if self.send(film, url) or self.wrong:
                return
            assert time.monotonic() < end, f"{film.number} is never acknowledged"
            time.sleep(0.2)

    def _note(self, film: Film, answer: httpx.Response) -> bool:
        body = answer.json()
        if answer.status_code not in (200, 201):
            if (answer.status_code, body["code"]) not in TRANSIENT:
                self.wrong.append(answer.text)
            return False
        known = self.acknowledged.setdefault(film.sha256, body)
        if known["id"] != body["id"] or body["sha256"] != film.sha256:
            self.wrong.append(f"told {known['id']}, then {answer.text}")
        return True


def listed(url: str) -> list[dict[str, Any]]:
    """All videos of the collection, from all pages."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query: dict[str, Any] = {"limit": 200} | ({} if cursor is None else {"cursor": cursor})
        page = httpx.get(f"{url}/videos", params=query, timeout=120).raise_for_status().json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def require_whole(url: str, ledger: Ledger, *, deeply: bool) -> None:
    """Assert that every acknowledged video is there, and every video that is there is whole, once.

    Args:
        url: of a service.
        ledger: of all clients.
        deeply: also that searches find each segment of all, and that all bytes can be read.
    """
    assert ledger.wrong == []
    videos = listed(url)
    found = {video["sha256"]: video for video in videos}
    assert len(found) == len(videos), "a content is there twice"
    assert set(ledger.acknowledged) <= set(found), "an acknowledged video is not there"
    assert set(found) <= set(ledger.sent)
    for sha256, video in found.items():
        film = ledger.sent[sha256]
        assert video["segments"] == film.segments * len(video["spaces"]), video
        assert (video["external_id"], video["size_bytes"]) == (film.external_id, len(film.data))
        assert video["thumbnail_url"] is not None, video  # its bytes are kept
        told = ledger.acknowledged.get(sha256)
        assert told is None or told["id"] == video["id"]
    if deeply and found:
        _require_searchable(url, videos)
        with httpx.Client(base_url=url, timeout=120) as client:
            for sha256, video in found.items():
                kept = client.get(f"/videos/{video['id']}/content").raise_for_status().content
                assert hashlib.sha256(kept).hexdigest() == sha256


def _require_searchable(url: str, videos: list[dict[str, Any]]) -> None:
    body = {"query": "a red square", "group_by": "segment", "top_k": 1000, "per_video": 100}
    hits: list[tuple[str, float]] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = httpx.post(f"{url}/search", json={**body, **more}, timeout=120)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        hits += [(hit["video_id"], hit["start"]) for hit in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(set(hits)) == len(hits), "a segment is found twice"
    counts = {video["id"]: 0 for video in videos}
    for video_id, _ in hits:
        counts[video_id] += 1
    segments = {video["id"]: video["segments"] // len(video["spaces"]) for video in videos}
    assert counts == segments  # those of the space that is searched
