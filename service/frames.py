"""Bounded slots of shared memory for pixels, read by encoder workers, and what goes into them.

One anonymous memory file (`memfd_create`, Linux) holds all slots. It has no name, so nothing can
be left in /dev/shm whatever is killed in whatever order, the small /dev/shm of a container does
not limit it, and no resource tracker process is needed: the kernel frees it with the last process
that holds its descriptor. Pages are taken when they are written and given back when a slot is
released, so a slot costs what its clip needs and the arena never more than `count * slot_bytes`.
"""

import asyncio
import ctypes
import mmap
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

_MOVED_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""Copied in one go: a millisecond in which the event loop does nothing else."""

_FALLOC_FL_KEEP_SIZE: Final = 1
_FALLOC_FL_PUNCH_HOLE: Final = 2


class ClipsTooLargeError(ValueError):
    """The asked clips can never fit a slot.

    Attributes:
        needed_bytes: what they would take.
        slot_bytes: what a slot holds.
    """

    def __init__(self, needed_bytes: int, *, slot_bytes: int) -> None:
        super().__init__(f"clips of {needed_bytes} bytes do not fit a slot of {slot_bytes} bytes")
        self.needed_bytes = needed_bytes
        self.slot_bytes = slot_bytes


@dataclass(frozen=True)
class Slot:
    """One leased slot: plain data, the same in every process that holds the arena.

    Attributes:
        offset: first byte in the arena, a multiple of the page size.
        shape: (clips, frames, height, width, 3) of the uint8 pixels in it.
    """

    offset: int
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the pixels."""
        return prod(self.shape)


class FrameSlots:
    """`count` slots of `slot_bytes` each; lent first come, first served. Linux only.

    Attributes:
        slot_bytes: size of a slot, rounded up to whole pages.
        descriptor: the memory file, to be passed to encoder workers.
    """

    def __init__(self, count: int, *, slot_bytes: int) -> None:
        if count < 1 or slot_bytes < 1:
            raise ValueError(f"count={count}, slot_bytes={slot_bytes}: both must be at least 1")
        self.count = count
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor = os.memfd_create("vtag-frames", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, count * self.slot_bytes)
        self._free = deque(range(count))
        self._turn = asyncio.Semaphore(count)
        self._waiting = 0

    @property
    def in_use(self) -> int:
        """Number of slots that are lent now."""
        return self.count - len(self._free)

    @property
    def waiting(self) -> int:
        """Number of leases that wait for a slot."""
        return self._waiting

    @property
    def has_room(self) -> bool:
        """Whether half of them would be free still if one more was lent, and nobody waits."""
        return not self._waiting and 2 * (self.in_use + 1) <= self.count

    @property
    def resident_bytes(self) -> int:
        """Memory that the arena really takes now."""
        return os.fstat(self.descriptor).st_blocks * 512

    def require(self, shape: tuple[int, ...]) -> None:
        """Raise ClipsTooLargeError if uint8 pixels of `shape` can never fit a slot."""
        if prod(shape) > self.slot_bytes:
            raise ClipsTooLargeError(prod(shape), slot_bytes=self.slot_bytes)

    @asynccontextmanager
    async def lease(self, shape: tuple[int, ...]) -> AsyncIterator[Slot]:
        """Wait for a free slot and lend it for uint8 pixels of `shape`.

        Leave the context only when no process writes into the slot any more: the next request
        gets the same pages.

        Raises:
            ClipsTooLargeError: `shape` needs more than a slot; raised at once, without waiting.
        """
        self.require(shape)
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        index = self._free.popleft()
        try:
            yield Slot(index * self.slot_bytes, tuple(shape))
        finally:
            if self.descriptor >= 0:
                _punch_hole(self.descriptor, index * self.slot_bytes, self.slot_bytes)
            self._free.append(index)
            self._turn.release()

    def close(self) -> None:
        """Give up this process's hold on the memory; safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Window:
    """Memory that one decode child writes into and no other process sees.

    Pixels go from it into a slot when the child has answered, so that a child can neither look at
    other videos nor change its own afterwards: one copy, a thousandth of what decoding takes.

    Attributes:
        descriptor: the memory file, to be passed to the child.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self.descriptor = os.memfd_create("vtag-window", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, size_bytes)

    @property
    def resident_bytes(self) -> int:
        """Memory that it really takes now."""
        return os.fstat(self.descriptor).st_blocks * 512 if self.descriptor >= 0 else 0

    async def move(self, slot: Slot, *, to: FrameSlots) -> None:
        """Copy the pixels of `slot`, which begin at byte 0 here, into the slot itself.

        Raises:
            ValueError: the window is smaller than the slot's pixels.
        """
        target = map_slot(to.descriptor, slot=slot).reshape(-1).data
        for start in range(0, slot.size_bytes, _MOVED_AT_ONCE_BYTES):
            part = target[start : start + _MOVED_AT_ONCE_BYTES]
            # Read, not mapped: whoever reads a mapping that was cut short is killed.
            if os.preadv(self.descriptor, [part], start) != len(part):
                raise ValueError(f"the window ends before the {slot.size_bytes} bytes of a slot")
            await asyncio.sleep(0)

    def clear(self) -> None:
        """Give its pages back; zeros are left."""
        if self.descriptor >= 0:
            _punch_hole(self.descriptor, 0, self._size_bytes)

    def close(self) -> None:
        """Give up this process's hold on the memory; safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def map_slot(descriptor: int, *, slot: Slot) -> npt.NDArray[np.uint8]:
    """Return the pixels of `slot` as a writable uint8 array of `slot.shape`, without a copy.

    The mapping lives as long as the array; call it in any process that has `descriptor`.
    """
    memory = mmap.mmap(descriptor, max(slot.size_bytes, 1), offset=slot.offset)
    flat = np.frombuffer(memory, np.uint8, count=slot.size_bytes)
    return flat.reshape(slot.shape)


def _punch_hole(descriptor: int, offset: int, size_bytes: int) -> None:
    # Gives the pages back and leaves zeros: no request can read pixels of another one.
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.fallocate(
        ctypes.c_int(descriptor),
        ctypes.c_int(_FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE),
        ctypes.c_long(offset),
        ctypes.c_long(size_bytes),
    )
    if result != 0:
        raise OSError(ctypes.get_errno(), "fallocate(PUNCH_HOLE) on the frame arena")
