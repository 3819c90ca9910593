"""Texts to vectors: kept as whole sets, and made only while somebody wants them."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from service.deadline import DeadlineExceededError, until
from service.label_encoder import LabelEncoder
from service.videoclip.tokenizing import Tokenizer
from tests.service.engine import Engine, running


def labels_of(engine: Engine, root: Path) -> LabelEncoder:
    """A new one on the parts of `engine`."""
    tokenizer = Tokenizer(next(root.rglob("tokenizer.json")), 32)
    return LabelEncoder(engine.encoder, cache=engine.cache, tokenizer=tokenizer)


async def ended(engine: Engine) -> None:
    """Wait until nothing is computed in the background."""
    async with asyncio.timeout(60):
        while engine.cache.pending:
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_a_set_that_was_asked_before_is_one_matrix(tmp_path: Path) -> None:
    """The same matrix again, all of it hits, by λ and templates apart, and no more than may be."""
    async with running(tmp_path, text_tower_tuned=True) as engine:
        encoder = labels_of(engine, tmp_path)
        texts = [f"a thing {number}" for number in range(300)]
        first = await encoder.encode(texts, templates=("a {}",), clip_weight=0.5)
        again = await encoder.encode(texts, templates=("a {}",), clip_weight=0.5)
        assert (first.cache_hits, again.cache_hits) == (0, 300)
        assert again.vectors is first.vectors
        with pytest.raises(ValueError, match="read-only"):
            again.vectors[0] = 0
        for templates, clip_weight in ((("the {}",), 0.5), (("a {}",), 0.1)):
            other = await encoder.encode(texts, templates=templates, clip_weight=clip_weight)
            assert not np.allclose(other.vectors, first.vectors)
            assert other.cache_hits == 0
        part = await encoder.encode(texts[:5], templates=("a {}",), clip_weight=0.5)
        assert part.cache_hits == 5
        assert np.array_equal(part.vectors, first.vectors[:5])


@pytest.mark.anyio
async def test_labels_of_clients_that_left_are_in_nobodys_way(tmp_path: Path) -> None:
    """Eight requests for 100,000 sentences give up; what they began ends, and a label is had."""
    async with running(tmp_path) as engine:
        labels = labels_of(engine, tmp_path)

        async def ask(number: int) -> None:
            deadline = time.monotonic() + 0.05
            async with until(deadline):
                await labels.encode(
                    [f"word {number} {n}" for n in range(1000)],
                    templates=tuple(f"{number} {n} of {{}}" for n in range(100)),
                    clip_weight=0.5,
                    deadline=deadline,
                )

        left = await asyncio.gather(*map(ask, range(8)), return_exceptions=True)
        assert all(isinstance(error, DeadlineExceededError) for error in left)
        async with asyncio.timeout(30):
            await labels.encode(
                ["live"], templates=("a {}",), clip_weight=0.5, deadline=time.monotonic() + 30
            )
        await ended(engine)
        assert engine.encoder.batcher.waiting_rows("texts") == 0
        assert engine.cache.computed < 800  # of 8,000: a few pieces, before they left


@pytest.mark.anyio
async def test_who_stays_gets_the_vectors_that_another_began(tmp_path: Path) -> None:
    """Two requests for one set, the first leaves at once: the second has all of it, and right."""
    async with running(tmp_path) as engine:
        labels = labels_of(engine, tmp_path)
        texts = [f"a thing {number}" for number in range(300)]
        soon, later = time.monotonic() + 60, time.monotonic() + 120
        first, second = (
            asyncio.create_task(
                labels.encode(texts, templates=("a {}",), clip_weight=0.5, deadline=deadline)
            )
            for deadline in (soon, later)
        )
        while not engine.encoder.batcher.everything():
            await asyncio.sleep(0)
        first.cancel()
        vectors = (await second).vectors
        assert engine.cache.computed == 300
        again = await labels_of(engine, tmp_path).encode(
            texts[::-1], templates=("a {}",), clip_weight=0.5
        )
        assert again.cache_hits == 300
        assert np.array_equal(again.vectors, vectors[::-1])
        await ended(engine)


@pytest.mark.anyio
async def test_nobody_waits_for_weights_that_nobody_wants(tmp_path: Path) -> None:
    """Texts that need another λ, asked for by who left, end before there is room for it."""
    async with running(tmp_path, text_tower_tuned=True) as engine:
        labels = labels_of(engine, tmp_path)
        async with engine.encoder.hold(0.1):  # and 0.5 is served: there is no room for a third
            asked = asyncio.create_task(
                labels.encode(["rain"], templates=("a {}",), clip_weight=0.3)
            )
            while not engine.encoder._residents._turn.locked():
                await asyncio.sleep(0.01)
            asked.cancel()
            await ended(engine)
            assert not engine.encoder._residents._turn.locked()
        assert engine.encoder.resident_clip_weights == (0.1, 0.5)
