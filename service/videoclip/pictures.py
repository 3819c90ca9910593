"""From a decoded frame to an upright RGB picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from service.videoclip.errors import UnsupportedCodec


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: transpose first, then mirror.

    A display matrix (ISO/IEC 14496-12, 8.3.2; libavutil/display.h) is reduced to the nearest of
    the eight ways in which a rectangle can lie.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation_degrees(self) -> int:
        """Clockwise quarter turns in degrees; a mirrored picture is mirrored left-right first."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read the display matrix of `frame`; none, or one that shows nothing, means upright."""
    # The library's types know only one key of this mapping.
    data = cast("SideDataContainer", frame.side_data).get(Type.DISPLAYMATRIX)
    if data is None:
        return Orientation()
    # A stored point (p, q) is shown at (a p + c q, b p + d q).
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    if a == b == c == d == 0:
        return Orientation()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)


def upright_rgb(
    frame: VideoFrame, *, converter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """The picture as a viewer sees it, except for its pixel shape.

    Colours are converted as libswscale does by default (BT.601 unless tagged otherwise), as in
    the pipelines CLIP's video descendants were trained with. A sample aspect ratio is *not*
    applied, interlaced fields are not parted, HDR is not tone-mapped: for the same reason.

    Args:
        frame: as decoded.
        converter: keeps its tables from frame to frame of a video, half a millisecond each.

    Returns:
        uint8 (H, W, 3), H and W of the upright picture; a view that need not be contiguous.

    Raises:
        UnsupportedCodec: the pixel format cannot be converted.
    """
    try:
        rgb = (converter or VideoReformatter()).reformat(frame, format="rgb24").to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        raise UnsupportedCodec(
            f"pictures of pixel format {frame.format.name} are not accepted",
            actual=frame.format.name,
        ) from error
    return turn(rgb.astype(np.uint8, copy=False), orientation_of(frame))


def turn(picture: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """`picture` (H, W, 3) as `orientation` shows it; a view."""
    if orientation.transpose:
        picture = picture.transpose(1, 0, 2)
    if orientation.mirror_x:
        picture = picture[:, ::-1]
    if orientation.mirror_y:
        picture = picture[::-1]
    return picture
