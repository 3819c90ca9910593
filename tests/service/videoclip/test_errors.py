"""Video errors and warnings."""

from __future__ import annotations

import pickle

import pytest

from service.videoclip import errors
from service.videoclip.errors import VideoError, VideoTooLong, VideoWarning

CODES = {
    "UnsupportedContainer": "unsupported_container",
    "NotAVideo": "no_video_stream",
    "UnsupportedCodec": "unsupported_codec",
    "NoFrames": "no_frames",
    "PictureTooLarge": "picture_too_large",
    "VideoTooLong": "video_too_long",
    "TimeRange": "time_range",
}


@pytest.mark.parametrize("name", CODES)
def test_an_error_survives_the_way_out_of_the_decoding_process(name: str) -> None:
    """Pickling keeps the class, the code, the detail, the limit and the actual value."""
    kind: type[VideoError] = getattr(errors, name)
    error = kind("too much", limit=2.5, actual=(3, "x"))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert copy == error
    assert hash(copy) == hash(error)
    assert type(copy) is kind
    assert (copy.code, copy.detail, copy.limit, copy.actual) == (
        CODES[name],
        "too much",
        2.5,
        (3, "x"),
    )
    assert str(copy) == "too much"


def test_a_code_can_be_given() -> None:
    """The pool reports a killed decoder as a plain VideoError with a code of its own."""
    error = VideoError("the video could not be decoded in time", code="decode_timeout", limit=30.0)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert copy.code == "decode_timeout"
    assert error != VideoTooLong("the video could not be decoded in time", code="decode_timeout")
    assert (error == "decode_timeout") is False


def test_warnings_are_values() -> None:
    """Two warnings with the same words are equal, and none can be changed."""
    warning = VideoWarning("frames_repeated", "8 pictures were asked for")
    assert warning == VideoWarning("frames_repeated", "8 pictures were asked for")
    with pytest.raises(AttributeError):
        warning.code = "other"  # type: ignore[misc]
