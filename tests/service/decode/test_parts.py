"""Parts of long videos through a real pool; answers that nobody could believe are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.channel import Header
from service.decode.parts import ask_cuts, ask_pictures, ask_timeline
from service.decode.pool import DecodePool
from service.frames import FrameSlots, map_slot
from service.videoclip.decoding import Limits
from service.videoclip.errors import UnsupportedContainer, VideoError
from service.videoclip.manifest import Preprocessing
from tests.service.videoclip.films import read_number, write_film
from tests.service.videoclip.test_shots import shots, write

SMALL = Preprocessing(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.anyio
async def test_a_timeline_pictures_and_cuts_come_from_a_child(tmp_path: Path) -> None:
    """Times arrive exactly: each of them finds its own picture again."""
    film = write_film(tmp_path / "film.mkv", pts=[33 * number for number in range(60)])
    scenes = write(tmp_path / "scenes.mp4", shots([30, 30]))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    slots = FrameSlots(1, slot_bytes=1 << 20)
    pool = DecodePool(slots, workers=1, limits=Limits(), timeout_seconds=60)
    await pool.start()
    try:
        info, timeline = await ask_timeline(pool, film)
        assert info.frame_count == len(timeline.pts_seconds) == 60
        assert np.flatnonzero(timeline.keyframe)[0] == 0
        numbers = np.array([[0, 7, 31], [58, 59, 7]])
        async with slots.lease((2, 3, 64, 64, 3)) as slot:
            decoded = await ask_pictures(
                pool,
                film,
                timeline.pts_seconds[numbers],
                preprocessing=SMALL,
                slot=slot,
                share=1.0,
            )
            pixels = map_slot(slots.descriptor, slot=slot)
            seen = [[read_number(picture) for picture in row] for row in pixels]
            del pixels
        assert seen == numbers.tolist()
        assert np.array_equal(decoded.times_seconds, timeline.pts_seconds[numbers])
        assert await ask_cuts(pool, scenes, start=0.0, end=2.4, share=1.0) == pytest.approx([1.2])
        with pytest.raises(UnsupportedContainer):
            await ask_timeline(pool, broken)
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


INFO = {
    "container": "mov",
    "codec": "h264",
    "width": 8,
    "height": 8,
    "rotation_degrees": 0,
    "fps": 1.0,
    "duration_seconds": 2.0,
    "frame_count": 2,
}
ZERO_ONE = "AAAAAAAAAAAAAAAAAADwPw=="  # float64 0 and 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"pts": 5},
        {"pts": "not base64"},
        {"pts": "AAAA"},
        {"pts": ""},
        {"pts": "AAAAAAAA8H8AAAAAAADwfw=="},  # infinite
        {"keyframe": ""},
        {"end": "soon"},
        {"end": 0.5},
        {"end": float("nan")},
        {"info": {"codec": "h264"}},
    ],
)
async def test_a_timeline_that_cannot_be_is_the_fault_of_the_video(lie: dict[str, Any]) -> None:
    """A child that was taken over gets nowhere with it."""
    honest = {"info": INFO, "pts": ZERO_ONE, "keyframe": "gA==", "end": 2.0}
    _, timeline = await ask_timeline(Liar(honest), Path("x"))
    assert timeline.pts_seconds.tolist() == [0.0, 1.0]
    with pytest.raises(VideoError) as caught:
        await ask_timeline(Liar({**honest, **lie} if lie else {}), Path("x"))
    assert caught.value.code == "decode_failed"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "cuts", [None, "1", [1.0, 1.0], [2.0, 1.0], [-1.0], [5.0], [float("nan")], [{}]]
)
async def test_cuts_that_cannot_be_are_the_fault_of_the_video(cuts: object) -> None:
    """Outside the part, not ascending, no numbers."""
    answer = {} if cuts is None else {"cuts": cuts}
    with pytest.raises(VideoError) as caught:
        await ask_cuts(Liar(answer), Path("x"), start=0.5, end=5.0, share=1.0)
    assert caught.value.code == "decode_failed"
