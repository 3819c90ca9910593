"""Pictures of videos that are kept: of a moment, of a part, named by whoever finds a video."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.running_service import RunningService

Film = Callable[..., bytes]


def _index(client: httpx.Client, film: bytes) -> str:
    answer = client.post("/videos", files={"video": film})
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def test_a_thumbnail_is_a_picture_of_the_size_that_was_asked(
    client: httpx.Client, film: Film
) -> None:
    """JPEG or WebP, with a validator and a time to live; a current copy is 304."""
    path = f"/videos/{_index(client, film())}/thumbnail"
    for form, kind in (("jpeg", "JPEG"), ("webp", "WEBP")):
        answer = client.get(path, params={"t": 0.5, "width": 80, "format": form})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == f"image/{form}"
        assert "max-age" in answer.headers["cache-control"]
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, image.size) == (kind, (80, 60))
    again = client.get(
        path,
        params={"t": 0.5, "width": 80, "format": "webp"},
        headers={"If-None-Match": answer.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")


def test_a_preview_moves(client: httpx.Client, film: Film) -> None:
    """Animated WebP of the part that was asked for."""
    path = f"/videos/{_index(client, film())}/preview"
    answer = client.get(path, params={"start": 0.5, "end": 1.5, "width": 64})
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.n_frames) == ("WEBP", 8)  # type: ignore[attr-defined]
    assert image.size == (64, 48)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("thumbnail?t=1000", "time_range"),
        ("thumbnail?t=-1", "invalid_request"),
        ("thumbnail?t=nan", "invalid_request"),
        ("thumbnail?width=100000", "invalid_request"),
        ("thumbnail?format=svg", "invalid_request"),
        ("preview?start=2&end=1", "time_range"),
        ("preview?start=1000", "time_range"),
        ("preview?width=641", "invalid_request"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    client: httpx.Client, film: Film, path: str, code: str
) -> None:
    """422 with a code, never a picture of something else."""
    answer = client.get(f"/videos/{_index(client, film())}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_many_who_ask_at_once_get_the_same_picture(client: httpx.Client, film: Film) -> None:
    """More at once than there are decoders: one answer for all."""
    path = f"/videos/{_index(client, film())}/thumbnail"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get(path, params={"t": 1.2}), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_whoever_finds_a_video_is_told_where_its_picture_is(
    client: httpx.Client, film: Film
) -> None:
    """Answers and hits carry URLs that work; moments have pictures of their own."""
    answer = client.post("/videos", files={"video": film()}).json()
    assert client.get(answer["thumbnail_url"]).status_code == 200
    assert client.get("/videos").json()["data"][0]["thumbnail_url"] == answer["thumbnail_url"]
    found = client.post("/search", json={"query": "a red square", "group_by": "video"}).json()
    hit = found["data"][0]
    urls = {hit["thumbnail_url"], *(moment["thumbnail_url"] for moment in hit["segments"])}
    assert len(urls) == len(hit["segments"]) == 2
    assert {client.get(url).status_code for url in urls} == {200}


def test_pictures_go_with_the_video(
    client: httpx.Client, service: RunningService, film: Film
) -> None:
    """After DELETE there is none on the disk, and the paths are 404."""
    video_id = _index(client, film(seconds=1.6))
    pictures = service.log.parent / "data" / "pictures"
    sha256 = client.get(f"/videos/{video_id}").json()["sha256"]
    assert client.get(f"/videos/{video_id}/thumbnail").status_code == 200
    assert len(list(pictures.glob(f"{sha256}-*"))) == 1
    client.delete(f"/videos/{video_id}")
    assert list(pictures.glob(f"{sha256}-*")) == []
    assert client.get(f"/videos/{video_id}/thumbnail").json()["code"] == "video_not_found"
