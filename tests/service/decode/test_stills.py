"""Pictures for people, made by a real child; answers that are no pictures are refused."""

import base64
import io
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from service.channel import Header
from service.decode.parts import Asked
from service.decode.pool import DecodePool
from service.decode.stills import PictureWish, ask_picture
from service.frames import FrameSlots
from service.videoclip.decoding import Limits
from service.videoclip.errors import TimeRange, UnsupportedContainer, VideoError
from tests.drawn_video import draw_video


def bright_centre(image: Image.Image) -> float:
    """Where the bright square of a drawn video is, as a share of the width."""
    pixels = np.asarray(image.convert("RGB"))[:, :, 0] > 120
    return float(np.flatnonzero(pixels.any(axis=0)).mean() / image.width)


@pytest.mark.anyio
async def test_pictures_show_their_moment(tmp_path: Path) -> None:
    """The square moves right with the time; sizes fit, are never enlarged; a preview moves."""
    film = draw_video(tmp_path / "film.mp4", seconds=2.0)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    slots = FrameSlots(1, slot_bytes=1 << 20)
    pool = DecodePool(slots, workers=1, limits=Limits(), timeout_seconds=60)
    await pool.start()

    async def picture(
        start: float | None, end: float | None = None, *, width: int = 80, kind: str = "jpeg"
    ) -> Image.Image:
        wish = PictureWish(start, end, width, cast("object", kind))  # type: ignore[arg-type]
        return Image.open(io.BytesIO(await ask_picture(pool, film, wish)))

    try:
        early, middle, late = [await picture(t) for t in (0.1, None, 1.9)]
        assert [image.format for image in (early, middle, late)] == ["JPEG"] * 3
        assert early.size == (80, 60)
        assert bright_centre(early) < 0.3 < bright_centre(middle) < 0.7 < bright_centre(late)
        assert (await picture(0.1, width=1920)).size == (160, 120)
        assert (await picture(0.1, kind="webp")).format == "WEBP"
        moving = await picture(0.0, 10.0, kind="webp")
        assert (moving.format, moving.n_frames, moving.size) == ("WEBP", 16, (80, 60))  # type: ignore[attr-defined]
        places = []
        for number in (0, 15):
            moving.seek(number)
            places.append(bright_centre(moving))
        assert places[0] < 0.3 < 0.7 < places[1]
        with pytest.raises(TimeRange):
            await picture(2.5)
        with pytest.raises(UnsupportedContainer):
            await ask_picture(pool, broken, PictureWish(None, None, 80, "jpeg"))
    finally:
        await pool.stop()
        slots.close()


class Liar:
    """A pool whose child says what it likes."""

    def __init__(self, answer: Header) -> None:
        self._answer = answer

    async def ask(self, path: Path, header: Header, *, share: float) -> Header:
        """Say it."""
        del path, header, share
        return self._answer


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"picture": 7},
        {"picture": "no base64!"},
        {"picture": base64.b64encode(b"<html>").decode()},
        {"picture": base64.b64encode(b"RIFF0000WEBP").decode()},
        {"picture": base64.b64encode(b"\xff\xd8\xff" + bytes(9 << 20)).decode()},
    ],
)
async def test_what_is_no_picture_is_not_passed_on(tmp_path: Path, answer: Header) -> None:
    """Nothing, another kind of file, or too much: the decoder failed."""
    pool: Asked = Liar(answer)
    with pytest.raises(VideoError) as refused:
        await ask_picture(pool, tmp_path, PictureWish(0.0, None, 80, "jpeg"))
    assert refused.value.code == "decode_failed"
