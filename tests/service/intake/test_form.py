"""Bodies: strict JSON, streamed forms, bounds on everything."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from service.errors import ApiError, ClientGoneError
from service.intake.body import BodyLimits, media_type, read_json
from service.intake.form import Form, read_form
from service.spool import Spool, SpoolFile, spool_base64

LIMITS = BodyLimits(
    max_json_bytes=1000,
    max_video_bytes=100_000,
    max_field_bytes=2000,
    max_parts=10,
    stall_seconds=0.2,
    total_seconds=1.0,
)
_BOUNDARY = "XyZ"


@pytest.fixture
async def video(tmp_path: Path) -> AsyncIterator[SpoolFile]:
    """A spool file of at most 100,000 bytes."""
    spool = Spool(tmp_path / "spool", max_bytes=LIMITS.max_video_bytes, reserve_bytes=0)
    spool.open()
    async with spool.file() as file:
        yield file


def _request(
    chunks: Iterable[bytes | None], *, kind: str = "application/json", **headers: str
) -> Request:
    """A request whose body comes in these chunks; None: the client leaves, then silence."""
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": True}
        for chunk in chunks
    ]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if headers.get("ends", "yes") == "yes":
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    raw = [(b"content-type", kind.encode())]
    raw += [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items() if k != "ends"]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def _form(parts: Sequence[tuple[str, str | None, bytes]], *, close: bool = True) -> bytes:
    body = b""
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        body += (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        )
        body += data + b"\r\n"
    return body + (f"--{_BOUNDARY}--\r\n".encode() if close else b"")


async def _read(body: bytes, video: SpoolFile, *, step: int = 1 << 16, **options: Any) -> Form:
    chunks = [body[i : i + step] for i in range(0, len(body), step)]
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    return await read_form(_request(chunks, kind=kind, **options), video, LIMITS)


@pytest.mark.anyio
async def test_a_form_comes_apart_wherever_the_chunks_are_cut(video: SpoolFile) -> None:
    """One byte at a time gives the same fields in order, and the same file."""
    film = bytes(range(256)) * 3 + f"\r\n--{_BOUNDARY[:2]}".encode()
    parts = [
        ("labels", None, "ein Hünd".encode()),
        ("video", "../../x.m3u8", film),
        ("labels", None, b"b"),
    ]
    form = await _read(_form(parts), video, step=1)
    assert form == Form([("labels", "ein Hünd"), ("labels", "b")], has_video=True)
    assert video.path.read_bytes() == film


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "malformed_multipart", 400),
        (b"not multipart at all", "malformed_multipart", 400),
        (_form([("labels", None, b"a")], close=False), "malformed_multipart", 400),
        (_form([("video", "a", b"1"), ("video", "b", b"2")]), "malformed_multipart", 400),
        (_form([("labels", "file.txt", b"1")]), "malformed_multipart", 400),
        (_form([("labels", None, b"\xff\xfe")]), "malformed_multipart", 400),
        (_form([("labels", None, b"a\0b")]), "malformed_multipart", 400),
        (_form([("labels", None, b"a")] * 11), "too_many_parts", 400),
        (_form([("labels", None, b"a" * 2001)]), "field_too_large", 413),
        (_form([("a", None, b"a" * 1500), ("b", None, b"b" * 600)]), "field_too_large", 413),
        (_form([("video", "v", b"v" * 100_001)]), "body_too_large", 413),
        (b"--XyZ\r\nContent-Type: x\r\n\r\nabc\r\n--XyZ--\r\n", "malformed_multipart", 400),
        (b"--XyZ\r\n" + b"A" * 100_000, "malformed_multipart", 400),
    ],
)
async def test_bad_forms_are_refused(video: SpoolFile, body: bytes, code: str, status: int) -> None:
    """Malformed, incomplete, too many, too large: each has its code."""
    with pytest.raises(ApiError) as caught:
        await _read(body, video)
    assert (caught.value.code, caught.value.status) == (code, status)


@pytest.mark.anyio
@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "b" * 100_000])
async def test_a_boundary_that_is_none_is_refused(video: SpoolFile, boundary: str) -> None:
    """Missing, empty and absurdly long boundaries are malformed."""
    request = _request([b"--b\r\n"], kind=f"multipart/form-data{boundary}")
    with pytest.raises(ApiError) as caught:
        await read_form(request, video, LIMITS)
    assert caught.value.code == "malformed_multipart"


@pytest.mark.anyio
async def test_a_declared_length_is_refused_before_reading() -> None:
    """A Content-Length over the cap is 413 at once; a lie is found while reading."""
    with pytest.raises(ApiError) as caught:
        await read_json(_request([], content_length="1001"), LIMITS)
    assert (caught.value.status, caught.value.limit, caught.value.actual) == (413, 1000, 1001)
    with pytest.raises(ApiError) as caught:
        await read_json(_request([b" " * 600] * 2, content_length="5"), LIMITS)
    assert caught.value.status == 413


@pytest.mark.anyio
async def test_silence_and_slowness_end_the_upload() -> None:
    """No byte for the stall time, or bytes for longer than the total: 408."""
    with pytest.raises(ApiError) as caught:
        await read_json(_request([b"{"], ends="never"), LIMITS)
    assert (caught.value.code, caught.value.limit) == ("slow_body", 0.2)

    request = _request([])

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    request._receive = drip
    with pytest.raises(ApiError) as caught:
        await read_json(request, replace(LIMITS, stall_seconds=60.0))
    assert (caught.value.code, caught.value.limit) == ("slow_body", 1.0)


@pytest.mark.anyio
async def test_a_client_that_leaves_is_not_answered() -> None:
    """Disconnecting in the middle of a body is its own outcome."""
    with pytest.raises(ClientGoneError):
        await read_json(_request([b"{", None]), LIMITS)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_other_content_types_are_refused(kind: str) -> None:
    """415 for what is neither JSON nor a form, and for compressed bodies."""
    for request in (_request([], kind=kind), _request([], content_encoding="gzip")):
        with pytest.raises(ApiError) as caught:
            media_type(request)
        assert caught.value.status == 415


@pytest.mark.anyio
async def test_base64_arrives_as_bytes(video: SpoolFile) -> None:
    """Standard padded base64 is decoded; other alphabets and line breaks are refused."""
    await spool_base64(base64.b64encode(b"\xff\xfe film").decode(), video)
    assert video.path.read_bytes() == b"\xff\xfe film"
    for bad in ("YQ", "a-_b", "YWJj\n", "é", "data:video/mp4;base64,YWJj"):
        with pytest.raises(ApiError) as caught:
            await spool_base64(bad, video)
        assert caught.value.code == "invalid_base64"


async def _fingerprint(body: bytes, folder: Path, *, boundary: str) -> str:
    spool = Spool(folder, max_bytes=LIMITS.max_video_bytes, reserve_bytes=0)
    spool.open()
    digest = hashlib.sha256()
    async with spool.file() as video:
        request = _request([body], kind=f"multipart/form-data; boundary={boundary}")
        await read_form(request, video, LIMITS, fingerprint=digest)
    return digest.hexdigest()


@pytest.mark.anyio
async def test_a_form_sent_again_has_the_same_fingerprint(tmp_path: Path) -> None:
    """Clients draw a new boundary for each try; only fields and files tell forms apart."""
    body = _form([("labels", None, b"a"), ("video", "x.mp4", b"film")])
    first = await _fingerprint(body, tmp_path, boundary=_BOUNDARY)
    again = body.replace(_BOUNDARY.encode(), b"another").replace(b"x.mp4", b"y.mp4")
    assert await _fingerprint(again, tmp_path, boundary="another") == first
    others = [body.replace(b"film", b"filn"), body.replace(b"\r\na\r", b"\r\nb\r")]
    others.append(body.replace(b'"labels"', b'"label"'))
    found = {await _fingerprint(other, tmp_path, boundary=_BOUNDARY) for other in others}
    assert len(found | {first}) == 4
