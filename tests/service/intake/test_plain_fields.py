"""Fields that are cut off before the parser: the same fields, whatever the form looks like."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart import MultipartParser

from service.errors import ApiError
from service.intake.body import BodyLimits
from service.intake.form import _OneVideo, _Parts
from service.intake.plain_fields import PlainFields
from service.spool import SpoolFile

_BOUNDARY = b"XyZ"
_LIMITS = BodyLimits(
    max_json_bytes=1,
    max_video_bytes=1 << 20,
    max_field_bytes=1 << 14,
    max_parts=20,
    stall_seconds=1.0,
    total_seconds=1.0,
)
_HEADS = (
    b'Content-Disposition: form-data; name="labels"',
    b'content-disposition: form-data; name="top_k"',
    b'Content-Disposition: form-data; name="video"',
    b'Content-Disposition: form-data; name="a b"',
    b"Content-Disposition: form-data; name=labels",
    b'Content-Disposition: form-data; name="labels"\r\nContent-Type: text/plain',
    b'Content-Disposition: form-data; name="other"; filename="x"',
)
_WORDS = (
    b"",
    b"a dog",
    b"\r\n",
    b"\r\n--",
    b"--XyZ",
    b"\r\n--XyZq",
    b"\0",
    b"x" * 3000,
    "é".encode(),
)
_parts = st.lists(
    st.tuples(st.sampled_from(_HEADS), st.lists(st.sampled_from(_WORDS), max_size=3)), max_size=25
)

_runs = st.lists(
    st.tuples(st.sampled_from(_HEADS), st.lists(st.sampled_from(_WORDS), max_size=15)), max_size=4
).map(lambda runs: [(head, [word]) for head, words in runs for word in words])


def _form(parts: list[tuple[bytes, list[bytes]]], end: bytes) -> bytes:
    start = b"--" + _BOUNDARY
    body = b"".join(
        start + b"\r\n" + head + b"\r\n\r\n" + b"".join(words) + b"\r\n" for head, words in parts
    )
    return body + start + end


def _read(body: bytes, path: Path, *, step: int, is_plain: bool) -> tuple[object, ...]:
    """Fields, the video, and how it ended."""
    path.unlink(missing_ok=True)
    video = SpoolFile(path, max_bytes=_LIMITS.max_video_bytes)
    files = _OneVideo(video)
    parts = _Parts(files, _LIMITS)
    parser = MultipartParser(_BOUNDARY, parts.callbacks())  # type: ignore[arg-type]
    plain = PlainFields(_BOUNDARY, take=parts.plain)
    how = ""
    try:
        for at in range(0, len(body), step):
            chunk = body[at : at + step]
            parser.write(plain.feed(chunk) if is_plain else chunk)
        parser.write(plain.rest())
    except ApiError as error:
        how = f"{error.code}: {error.detail}"
    except (ValueError, UnicodeDecodeError) as error:
        how = type(error).__name__
    finally:
        video.close()
    return parts.fields, files.taken, bytes(video._waiting), parts.ended, how


@given(
    parts=_parts | _runs,
    end=st.sampled_from([b"--\r\n", b"--", b"\r\n", b"", b"--\r\nepilogue", b" \r\n"]),
    step=st.sampled_from([1, 7, 61, 1 << 16]),
)
def test_what_is_cut_is_what_the_parser_finds(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[bytes, list[bytes]]],
    end: bytes,
    step: int,
) -> None:
    """Values, their order, the video and every refusal are those of the parser alone."""
    path = tmp_path_factory.getbasetemp() / "plain.video"
    body = _form(parts, end)
    expected = _read(body, path, step=step, is_plain=False)
    assert _read(body, path, step=step, is_plain=True) == expected


def test_a_thousand_labels_never_reach_the_parser() -> None:
    """They are taken as they come, in whatever pieces; the video that follows is left over."""
    labels = [f"label {number}" for number in range(1000)]
    body = _form([(_HEADS[0], [label.encode()]) for label in labels], b"")
    video = b'\r\nContent-Disposition: form-data; name="video"; filename="x"\r\n\r\n...'
    found: list[str] = []
    plain = PlainFields(
        _BOUNDARY,
        take=lambda name, values: found.extend(f"{name} {value.decode()}" for value in values),
    )
    left = b"".join(
        plain.feed((body + video)[at : at + 1000]) for at in range(0, len(body + video), 1000)
    )
    assert found == [f"labels {label}" for label in labels]
    assert left + plain.rest() == b"--" + _BOUNDARY + video
