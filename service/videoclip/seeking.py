"""Which packets are decoded for the pictures that are wanted: the seek policy, as pure functions.

Decoding can begin at key pictures only. So the packets from the key picture before a wanted one to
the wanted one itself are a group; groups that touch are one. A group is reached by seeking, or by
reading on where it begins soon; packets between groups are never decoded. One extreme of this is
decoding in order (wanted pictures everywhere: one group), the other a seek for each picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Route = Literal["groups", "in order"]

# Reading this many packets on is cheaper than a seek, which reads its way from an index entry.
READ_ON_PACKETS = 64


@dataclass(frozen=True)
class Group:
    """Packets `first` to `last`, both included; `first` can be decoded alone."""

    first: int
    last: int

    @property
    def packets(self) -> int:
        """How many packets it has."""
        return self.last - self.first + 1


def choose_route(*, stamps_trusted: bool) -> Route:
    """How pictures are found again.

    By their time stamps (``groups``) where each packet states when its picture is shown; by
    decoding and counting everything (``in order``) where stamps are missing, repeated, or count
    packets, as in AVI with B-frames and in raw streams.
    """
    return "groups" if stamps_trusted else "in order"


def groups_of(
    packets: NDArray[np.int64], *, pts: NDArray[np.int64], keyframe: NDArray[np.bool_]
) -> list[Group]:
    """What to decode for `packets`.

    Args:
        packets: int64, numbers of the wanted packets, in any order, repeated or not.
        pts: int64 (P,), presentation time stamps in the order of the file.
        keyframe: bool (P,), decoding can begin here.

    Returns:
        Groups, apart and ascending; every wanted packet is in one. The first packet of a group is
        a key picture that is not shown after the wanted picture, or packet 0.
    """
    keys = np.flatnonzero(keyframe)
    groups: list[Group] = []
    for packet in np.unique(packets):
        before = keys[: np.searchsorted(keys, packet, side="right")]
        # A picture that is shown before the key picture it follows in the file (open GOP) needs
        # the group before.
        good = before[pts[before] <= pts[packet]]
        first = int(good[-1]) if len(good) else 0
        while groups and first <= groups[-1].last:
            first = min(first, groups.pop().first)
        groups.append(Group(first, int(packet)))
    return groups


def reads_on(position: int | None, first: int) -> bool:
    """Whether packet `first` is reached by reading on from packet `position` instead of seeking."""
    return position is not None and position <= first <= position + READ_ON_PACKETS


def can_leave_out(codec: str) -> bool:
    """Whether pictures that the decoder calls unreferenced are safe not to decode.

    In H.264 it is certain that nothing depends on such a picture. In HEVC a picture of a higher
    temporal layer may; other decoders know no such pictures.
    """
    return codec == "h264"
