"""Slots of shared memory: bounded, lent in turn, given back clean."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from service.frames import ClipsTooLargeError, FrameSlots, Slot, Window, map_slot

SHAPE = (2, 3, 16, 16, 3)


@pytest.mark.anyio
async def test_pixels_written_through_one_mapping_are_read_through_another() -> None:
    """Every mapping of a slot shows the same pixels."""
    slots = FrameSlots(2, slot_bytes=10_000)
    async with slots.lease(SHAPE) as slot:
        pixels = np.arange(slot.size_bytes, dtype=np.uint64).astype(np.uint8).reshape(SHAPE)
        map_slot(slots.descriptor, slot=slot)[...] = pixels
        assert np.array_equal(map_slot(slots.descriptor, slot=slot), pixels)
    slots.close()


@pytest.mark.anyio
async def test_slots_do_not_overlap() -> None:
    """Two leases at a time are two pieces of memory."""
    slots = FrameSlots(2, slot_bytes=5000)
    async with slots.lease((5000,)) as first, slots.lease((5000,)) as second:
        map_slot(slots.descriptor, slot=first)[...] = 1
        map_slot(slots.descriptor, slot=second)[...] = 2
        assert map_slot(slots.descriptor, slot=first).max() == 1
        assert slots.in_use == 2
    assert slots.in_use == 0
    slots.close()


@pytest.mark.anyio
async def test_a_released_slot_gives_its_memory_back_and_is_blank() -> None:
    """The next request sees zeros, and the arena takes no memory while nothing is lent."""
    slots = FrameSlots(1, slot_bytes=1 << 20)
    async with slots.lease((1 << 20,)) as slot:
        map_slot(slots.descriptor, slot=slot)[...] = 7
        assert slots.resident_bytes >= 1 << 20
    assert slots.resident_bytes == 0
    async with slots.lease((1 << 20,)) as slot:
        assert map_slot(slots.descriptor, slot=slot).max() == 0
    slots.close()


@pytest.mark.anyio
async def test_a_lease_waits_for_its_turn() -> None:
    """With all slots lent, leases are served in the order in which they asked."""
    slots = FrameSlots(1, slot_bytes=100)
    order: list[int] = []

    async def borrow(number: int) -> None:
        async with slots.lease((10,)):
            order.append(number)
            await asyncio.sleep(0)

    async with slots.lease((10,)):
        tasks = [asyncio.create_task(borrow(number)) for number in range(5)]
        await asyncio.sleep(0.01)
        assert order == []
        assert slots.waiting == 5
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    slots.close()


@pytest.mark.anyio
async def test_cancelled_and_failed_leases_give_their_slot_back() -> None:
    """Neither a cancelled wait nor an error inside loses a slot."""
    slots = FrameSlots(1, slot_bytes=100)
    async with slots.lease((10,)):
        waiting = asyncio.create_task(slots.lease((10,)).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(RuntimeError, match="inside"):
        async with slots.lease((10,)):
            raise RuntimeError("inside")
    async with asyncio.timeout(1), slots.lease((10,)):
        assert slots.in_use == 1
    slots.close()


@pytest.mark.anyio
async def test_clips_that_never_fit_are_refused_at_once() -> None:
    """Waiting would be for ever; the error says what is needed and what there is."""
    slots = FrameSlots(1, slot_bytes=4096)
    with pytest.raises(ClipsTooLargeError) as caught:
        async with slots.lease((4097,)):
            pass
    assert (caught.value.needed_bytes, caught.value.slot_bytes) == (4097, 4096)
    slots.close()


def test_the_arena_has_no_name_that_could_be_left_behind() -> None:
    """Nothing appears in /dev/shm."""
    before = set(Path("/dev/shm").iterdir())  # noqa: S108 - looked at, not written
    slots = FrameSlots(2, slot_bytes=1 << 20)
    assert set(Path("/dev/shm").iterdir()) <= before  # noqa: S108
    slots.close()
    slots.close()


@pytest.mark.parametrize(("count", "size"), [(0, 10), (1, 0)])
def test_senseless_sizes_are_refused(count: int, size: int) -> None:
    """The error shows the values."""
    with pytest.raises(ValueError, match=f"count={count}, slot_bytes={size}"):
        FrameSlots(count, slot_bytes=size)


@pytest.mark.anyio
async def test_a_window_moves_its_pixels_into_a_slot() -> None:
    """Also more than is copied at once; afterwards it is blank and takes no memory."""
    slots = FrameSlots(2, slot_bytes=9_000_000)
    window = Window(slots.slot_bytes)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1000, 1000, 3), dtype=np.uint8)
    async with slots.lease((10,)), slots.lease(pixels.shape) as slot:
        map_slot(window.descriptor, slot=Slot(0, pixels.shape))[...] = pixels
        await window.move(slot, to=slots)
        assert np.array_equal(map_slot(slots.descriptor, slot=slot), pixels)
        assert window.resident_bytes >= pixels.size
        window.clear()
        assert window.resident_bytes == 0
        assert np.array_equal(map_slot(slots.descriptor, slot=slot), pixels)
    slots.close()
    window.close()
    window.close()


@pytest.mark.anyio
async def test_a_window_that_was_cut_short_is_an_error_and_not_a_crash() -> None:
    """Its child could have shortened it: reading a mapping of it would end this process."""
    slots = FrameSlots(1, slot_bytes=100_000)
    window = Window(slots.slot_bytes)
    os.ftruncate(window.descriptor, 5000)
    async with slots.lease((10_000,)) as slot:
        with pytest.raises(ValueError, match="the window ends before the 10000 bytes"):
            await window.move(slot, to=slots)
    window.close()
    slots.close()
