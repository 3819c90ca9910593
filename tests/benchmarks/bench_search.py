"""`make bench-search`: how well search finds, through the HTTP API of a service that was started.

The *retrieval* set of Motion World is drawn and indexed; each caption is asked for. R@1, R@5, R@10
and the median rank have to be those that `python -m training evaluate --pair-rule cosine` computes
of the same files without a service; it ends with exit code 1 if they are not. Recall@10 is that of
the graph against brute force over the vectors that `POST /embeddings` gives.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from tests.conftest import REPOSITORY
from tests.running_service import running_service

Vectors = npt.NDArray[np.float64]

CLIENTS = 4
TOP_K = 10
_PAGE = 1000


def main() -> int:
    """Measure, print, and tell whether the two ways agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=768)
    parser.add_argument("--store", type=Path, default=REPOSITORY / "model_store")
    parsed = parser.parse_args()
    active = json.loads((parsed.store / "active.json").read_text())["active"]
    artefact = parsed.store / active["name"] / active["revision"]
    with tempfile.TemporaryDirectory(prefix="vtag-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # run as root, the embedded Postgres is another user
        offline = _offline(folder, artefact, videos=parsed.videos)
        environment = {
            "VTAG_MODEL_STORE": str(parsed.store),
            "VTAG_SEGMENT_SECONDS": "60",  # a video is one segment, as for `evaluate`
            "VTAG_EXACT_SEARCH_SEGMENTS": "0",
        }
        with (
            running_service(folder, environment=environment) as service,
            httpx.Client(base_url=service.url, timeout=300) as client,
        ):
            pairs = _pairs(folder / "videos/retrieval/test")
            ids = _index(client, pairs)
            online, recall = _search(client, pairs, ids)
    return _report(online, offline, recall, videos=len(pairs))


def _offline(folder: Path, artefact: Path, *, videos: int) -> Mapping[str, float]:
    """Draw the set, and measure it without a service."""
    drawing = ["draw", str(folder / "videos"), "--sets", "retrieval", "--validation", "1"]
    _training(*drawing, "--test", str(videos))
    listed, found = folder / "videos/retrieval/test/list.csv", folder / "offline.json"
    protocol = ["--protocol", "retrieval", "--pair-rule", "cosine"]
    _training("evaluate", str(artefact), str(listed), *protocol, "--json", str(found))
    figures: dict[str, float] = json.loads(found.read_text())["results"][0]["parts"][0]["figures"]
    return {name: figures[f"t2v {name}"] for name in ("r1", "r5", "r10", "median_rank")}


def _training(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _pairs(folder: Path) -> list[tuple[Path, str]]:
    with (folder / "list.csv").open(newline="") as file:
        return [(folder / row["path"], row["caption"]) for row in csv.DictReader(file)]


def _index(client: httpx.Client, pairs: Sequence[tuple[Path, str]]) -> list[str]:
    def send(pair: tuple[Path, str]) -> str:
        answer = client.post("/videos", files={"video": pair[0].read_bytes()})
        answer.raise_for_status()
        return str(answer.json()["id"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(send, pairs))


def _search(
    client: httpx.Client, pairs: Sequence[tuple[Path, str]], ids: Sequence[str]
) -> tuple[dict[str, float], float]:
    """Ask for each caption as it is: figures of text to video, and recall of the first ten."""
    texts = _embed(client, [caption for _, caption in pairs])
    videos = _embed_videos(client, [path for path, _ in pairs])
    cosines = texts @ videos.T
    least = -np.sort(-cosines, axis=1)[:, TOP_K - 1]

    def ask(number: int) -> tuple[int, float]:
        body: dict[str, Any] = {"query": pairs[number][1], "per_video": 1, "templates": ["{}"]}
        hits = _hits(client, body | {"top_k": _PAGE})
        own = next(cosine for video_id, cosine in hits if video_id == ids[number])
        rank = 1 + sum(cosine > own for _, cosine in hits)
        first = _hits(client, body | {"top_k": TOP_K})[:TOP_K]
        return rank, sum(cosine >= least[number] - 1e-5 for _, cosine in first) / TOP_K

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = list(pool.map(ask, range(len(pairs))))
    ranks = np.array([rank for rank, _ in asked])
    figures = {f"r{k}": 100.0 * float((ranks <= k).mean()) for k in (1, 5, 10)}
    recall = float(np.mean([share for _, share in asked]))
    return figures | {"median_rank": float(np.median(ranks))}, recall


def _hits(client: httpx.Client, body: dict[str, Any]) -> list[tuple[str, float]]:
    """All pages of a search, or the first if few are wanted: id and cosine."""
    found: list[tuple[str, float]] = []
    while True:
        answer = client.post("/search", json=body)
        answer.raise_for_status()
        page = answer.json()
        found += [(hit["video_id"], hit["cosine"]) for hit in page["data"]]
        if page["next_cursor"] is None or body["top_k"] < _PAGE:
            return found
        body = body | {"cursor": page["next_cursor"]}


def _embed(client: httpx.Client, texts: Sequence[str]) -> Vectors:
    rows: list[Any] = []
    for start in range(0, len(texts), 200):
        answer = client.post(
            "/embeddings",
            json={"input": list(texts[start : start + 200]), "templates": ["{}"]},
        )
        answer.raise_for_status()
        rows += [each["embedding"] for each in answer.json()["data"]]
    return np.array(rows)


def _embed_videos(client: httpx.Client, paths: Sequence[Path]) -> Vectors:
    def one(path: Path) -> Any:
        video = {"type": "base64", "data": base64.b64encode(path.read_bytes()).decode()}
        answer = client.post("/embeddings", json={"modality": "video", "input": [video]})
        answer.raise_for_status()
        return answer.json()["data"][0]["embedding"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return np.array(list(pool.map(one, paths)))


def _report(
    online: Mapping[str, float], offline: Mapping[str, float], recall: float, *, videos: int
) -> int:
    print(f"{videos} videos, one caption each; recall@{TOP_K} of the graph {recall:.4f}")
    for name, value in online.items():
        difference = value - offline[name]
        print(f"{name:12s} HTTP {value:7.2f}  offline {offline[name]:7.2f}  ({difference:+.2f})")
    return int(any(online[name] != offline[name] for name in online))


if __name__ == "__main__":
    sys.exit(main())
