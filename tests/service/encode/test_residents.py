"""Several λ at once: right numbers, a bound on how many, the served one never dropped."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encode.residents import NoRoomError, NotResidentError, Residents
from service.encode.space import round_clip_weight
from service.videoclip.manifest import ArtefactError
from service.videoclip.preprocessing import normalize
from tests.service import small_artefact
from tests.service.encode.started import CLIP, IDS, SHAPE, TUNED, at, fill, running

pytestmark = pytest.mark.anyio

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4)


class Worker:
    """Networks as a worker would have them."""

    def __init__(self) -> None:
        self.networks = {0.5}
        self.most = 1
        self.full = False

    async def build(self, clip_weight: float) -> float:
        """Take a moment, and the place of a network."""
        await asyncio.sleep(0)
        if self.full and len(self.networks) > 1:
            raise NoRoomError("full")
        self.networks.add(clip_weight)
        self.most = max(self.most, len(self.networks))
        await asyncio.sleep(0)
        return 1.0 + clip_weight

    async def drop(self, clip_weight: float) -> None:
        """Give the place back."""
        self.networks.remove(clip_weight)

    def residents(self, limit: int) -> Residents:
        """The part that is tested, as after a start at λ = 0.5."""
        found = Residents(limit=limit, served=0.5, build=self.build, drop=self.drop)
        found.restarted(0.5, logit_scale=1.5)
        return found


@given(
    limit=st.integers(2, 4),
    asked=st.lists(st.tuples(st.booleans(), st.sampled_from(WEIGHTS)), max_size=25),
)
@settings(max_examples=60, deadline=None)
async def test_there_are_never_more_than_the_limit(
    limit: int, asked: list[tuple[bool, float]]
) -> None:
    """Whatever is held and served at once: all come to their turn, and what is held is there."""
    worker = Worker()
    residents = worker.residents(limit)

    async def use(serve: bool, clip_weight: float) -> None:
        if serve:
            await residents.serve(clip_weight)
            return
        async with residents.hold(clip_weight):
            for _ in range(3):
                await asyncio.sleep(0)
                assert clip_weight in worker.networks
            async with residents.hold(clip_weight, again=True):
                await asyncio.sleep(0)
                assert residents.logit_scale(clip_weight) == 1.0 + clip_weight

    async with asyncio.timeout(10):
        await asyncio.gather(*(use(*one) for one in asked))
    assert worker.most <= limit
    assert set(residents.present) == worker.networks
    assert residents.served in worker.networks


async def test_the_one_used_longest_ago_goes_first() -> None:
    """The served one stays, however long ago it was used."""
    worker = Worker()
    residents = worker.residents(3)
    for clip_weight in (0.1, 0.2, 0.1, 0.3):
        async with residents.hold(clip_weight):
            pass
    assert worker.networks == {0.5, 0.1, 0.3}


async def test_a_limit_of_one_serves_one_and_switches() -> None:
    """No λ can be named beside the served one; a switch has two for a moment, then one."""
    worker = Worker()
    residents = worker.residents(1)
    with pytest.raises(NotResidentError):
        async with residents.hold(0.1):
            pass
    async with residents.hold(0.5):
        await residents.serve(0.2)
        assert worker.networks == {0.5, 0.2}
        async with residents.hold(0.5, again=True):  # a request that began before the switch
            pass
    await asyncio.sleep(0.01)
    assert worker.networks == {0.2}
    assert worker.most == 2


async def test_a_lambda_in_steady_use_does_not_keep_another_out() -> None:
    """Requests for the λ that is there queue behind one that waits for its place."""
    worker = Worker()
    residents = worker.residents(2)
    stop = asyncio.Event()

    async def steady() -> None:
        while not stop.is_set():
            async with residents.hold(0.1):
                await asyncio.sleep(0.001)

    load = [asyncio.create_task(steady()) for _ in range(3)]
    await asyncio.sleep(0.005)
    async with asyncio.timeout(5), residents.hold(0.2):
        assert worker.networks == {0.5, 0.2}
    stop.set()
    await asyncio.gather(*load)


async def test_memory_is_a_limit_too() -> None:
    """Where the next network has no room, others go; where that is not enough, it is said."""
    worker = Worker()
    residents = worker.residents(3)
    async with residents.hold(0.1):
        pass
    worker.full = True
    async with residents.hold(0.2):
        assert worker.networks == {0.5, 0.2}
    worker.networks.add(0.9)  # somebody else's: to drop what there is does not help
    with pytest.raises(NoRoomError):
        await residents.serve(0.3)
    assert residents.served == 0.5


async def test_a_waiter_that_leaves_does_not_block_the_others() -> None:
    """Cancelled while it waits for a place: the next one gets it."""
    worker = Worker()
    residents = worker.residents(2)

    async def use(clip_weight: float) -> None:
        async with residents.hold(clip_weight):
            pass

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(residents.hold(0.1))
        leaving = asyncio.create_task(use(0.2))
        await asyncio.sleep(0.001)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    async with asyncio.timeout(5):
        await use(0.3)
    assert worker.networks == {0.5, 0.3}


async def test_what_clients_had_built_and_did_not_wait_for_is_counted() -> None:
    """Many name a λ and leave in the middle of the build: never more than the limit are there."""
    worker = Worker()
    residents = worker.residents(2)
    build = worker.build
    leaving: asyncio.Task[None]

    async def build_while_the_asker_leaves(clip_weight: float) -> float:
        leaving.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        return await build(clip_weight)

    worker_of = vars(residents)
    worker_of["_build"] = build_while_the_asker_leaves

    async def use(clip_weight: float) -> None:
        async with residents.hold(clip_weight):
            raise AssertionError("it has left")

    for clip_weight in WEIGHTS:
        leaving = asyncio.create_task(use(clip_weight))
        await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled()
    worker_of["_build"] = build
    async with asyncio.timeout(5), residents.hold(0.9):
        assert set(residents.present) == worker.networks == {0.5, 0.9}
    assert worker.most == 2


@pytest.mark.parametrize("text_tower_tuned", [False, True])
async def test_requests_name_their_lambda_while_another_is_served(
    tmp_path: Path, text_tower_tuned: bool
) -> None:
    """Side by side, more of them than may be resident: each answer is of the λ it names."""
    async with (
        running(tmp_path, text_tower_tuned=text_tower_tuned, resident=2) as (encoder, slots),
        slots.lease(SHAPE) as slot,
    ):
        frames = normalize(fill(slots, slot), encoder.manifest.preprocessing)

        async def ask(clip_weight: float) -> None:
            found = await encoder.encode_clips(slot, clip_weight=clip_weight)
            texts = await encoder.encode_texts(IDS, clip_weight=clip_weight)
            end = at(round_clip_weight(clip_weight))
            expected = small_artefact.expected_video(frames, end)
            assert found.vectors == pytest.approx(expected, abs=1e-5)
            words = small_artefact.expected_text(IDS, end if text_tower_tuned else CLIP)
            assert texts.vectors == pytest.approx(words, abs=1e-5)
            assert found.clip_weight == texts.clip_weight == round_clip_weight(clip_weight)
            assert found.logit_scale == pytest.approx(float(np.exp(end["logit_scale"])))

        await asyncio.gather(*(ask(w) for w in (0.5, 0.1, 0.5, 0.9, 0.12345, 0.1)))
        assert encoder.clip_weight == 0.5
        assert 0.5 in encoder.resident_clip_weights
        assert len(encoder.resident_clip_weights) == 2


async def test_a_worker_that_died_gets_its_other_weights_back(tmp_path: Path) -> None:
    """Held when the worker is killed: they are built again for the next call."""
    async with running(tmp_path) as (encoder, slots), slots.lease(SHAPE) as slot:
        fill(slots, slot)
        async with encoder.hold(0.25):
            before = await encoder.encode_clips(slot, clip_weight=0.25)
            assert encoder.pid is not None
            os.kill(encoder.pid, signal.SIGKILL)
            after = await encoder.encode_clips(slot, clip_weight=0.25)
        assert np.array_equal(before.vectors, after.vectors)
        assert encoder.resident_clip_weights == (0.25, 0.5)


async def test_a_named_lambda_that_does_not_compute_is_refused(tmp_path: Path) -> None:
    """NaN at one end: λ = 1 serves on, another one is refused by name."""
    bad = {**TUNED, "visual.bias": np.full(8, np.nan, np.float32)}
    async with (
        running(tmp_path, tuned=bad, clip_weight=1.0, golden={}) as (encoder, slots),
        slots.lease(SHAPE) as slot,
    ):
        fill(slots, slot)
        with pytest.raises(ArtefactError, match="zero or not finite"):
            await encoder.encode_clips(slot, clip_weight=0.5)
        assert (await encoder.encode_clips(slot)).clip_weight == 1.0
