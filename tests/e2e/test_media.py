"""Videos that are kept: sent back whole and in parts, gone with their video, or not kept at all."""

from collections.abc import Callable

import httpx
import pytest

from tests.e2e.conftest import make_client
from tests.running_service import RunningService

Film = Callable[..., bytes]


def _index(client: httpx.Client, film: bytes, **fields: object) -> str:
    answer = client.post("/videos", files={"video": film}, data=fields)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def test_a_video_comes_back_as_it_was_sent(client: httpx.Client, film: Film) -> None:
    """Bytes, type, name and validator; a current copy is 304, HEAD has no body."""
    data = film()
    path = f"/videos/{_index(client, data)}/content"
    whole = client.get(path)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"].endswith('.mp4"')
    assert whole.headers["x-content-type-options"] == "nosniff"
    tag = whole.headers["etag"]
    assert tag.strip('"') == client.get(path.removesuffix("/content")).json()["sha256"]
    assert client.get(path, headers={"If-None-Match": f'"x", {tag}'}).status_code == 304
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))


def test_a_part_of_a_video_is_206(client: httpx.Client, film: Film) -> None:
    """As players ask: a start, an end, the tail; outside is 416; If-Range guards a resume."""
    data = film()
    path = f"/videos/{_index(client, data)}/content"
    size = len(data)
    for asked, start, end in (
        ("bytes=0-99", 0, 100),
        (f"bytes={size - 10}-", size - 10, size),
        ("bytes=-7", size - 7, size),
    ):
        part = client.get(path, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    tag = part.headers["etag"]
    same = client.get(path, headers={"Range": "bytes=0-9", "If-Range": tag})
    other = client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code, other.content) == (206, 200, data)
    beyond = client.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{size}"


def test_the_bytes_go_with_the_video(
    client: httpx.Client, service: RunningService, film: Film
) -> None:
    """After DELETE nothing of it is on the disk, and its path is 404."""
    kept = service.log.parent / "data" / "media"
    video_id = _index(client, film(seconds=1.4))
    sha256 = client.get(f"/videos/{video_id}").json()["sha256"]
    assert (kept / sha256[:2] / sha256).read_bytes() == film(seconds=1.4)
    assert client.delete(f"/videos/{video_id}").status_code == 204
    assert not (kept / sha256[:2] / sha256).exists()
    gone = client.get(f"/videos/{video_id}/content")
    assert (gone.status_code, gone.json()["code"]) == (404, "video_not_found")


@pytest.mark.parametrize("film_bytes", [b"no video at all", b""])
def test_what_cannot_be_indexed_is_not_kept(
    client: httpx.Client, service: RunningService, film_bytes: bytes
) -> None:
    """Refused uploads leave nothing behind."""
    media = service.log.parent / "data" / "media"
    before = {path for path in media.glob("*/*") if path.is_file()}  # to be swept, perhaps
    client.post("/videos", files={"video": film_bytes})
    assert {path for path in media.glob("*/*") if path.is_file()} <= before


def test_a_service_that_keeps_nothing_says_so(small_store: object, film: Film) -> None:
    """VTAG_MEDIA_URL=none: videos are indexed and found; bytes and pictures are 404 with a code."""
    settings = {"VTAG_MODEL_STORE": str(small_store), "VTAG_MEDIA_URL": "none"}
    with make_client(settings) as client:
        video = client.post("/videos", files={"video": film()}).json()
        assert video["thumbnail_url"] is None  # nobody is sent there
        for name in ("content", "thumbnail", "preview"):
            missing = client.get(f"/videos/{video['id']}/{name}")
            assert (missing.status_code, missing.json()["code"]) == (404, "media_not_kept")


def test_a_full_store_refuses_the_next_video(small_store: object, film: Film) -> None:
    """507 with the limit; nothing of it is indexed; deleting another makes room."""
    first, second = film(), film(seconds=1.2)
    settings = {
        "VTAG_MODEL_STORE": str(small_store),
        "VTAG_MEDIA_BYTES": str(max(len(first), len(second)) + 10),
    }
    with make_client(settings) as client:
        video_id = _index(client, first)
        refused = client.post("/videos", files={"video": second})
        assert (refused.status_code, refused.json()["code"]) == (507, "media_full")
        assert [video["id"] for video in client.get("/videos").json()["data"]] == [video_id]
        client.delete(f"/videos/{video_id}")
        _index(client, second)
