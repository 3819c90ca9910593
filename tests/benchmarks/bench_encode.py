"""`python -m tests.benchmarks.bench_encode [STORE [MODEL]]`: what stands before the networks costs.

Without arguments on the demo model. STORE is a folder for an artefact of MODEL (ViT-B-32-quickgelu
if none is named) with random weights, published there first if it is not there yet; then cold
labels are measured, against open_clip's own network in torch at its full length, and not clips
(`bench_throughput` does that in less time). Ways that are compared take turns in one run, so that
neighbours on the machine disturb all alike; medians over the rounds, with their quartiles, of wall
time and of processor time (of this process and the encoder's), which neighbours disturb less.
Nothing is asserted: figures are for reading.
"""

import asyncio
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from service.encode.device import CPU
from service.encode.process import EncoderProcess
from service.encode.runtime import Model
from service.encode.staging import Staging
from service.frames import FrameSlots, map_slot
from service.label_encoder import LabelEncoder
from service.labels import LabelLimits, LabelQuery, normalise_queries
from service.store import ArtefactStore
from service.tags import LabelVectors, keep, label_warnings, score_tags
from service.text_cache import TextCache
from service.videoclip.manifest import Manifest
from service.videoclip.tokenizing import Tokenizer
from tests.benchmarks.process_tree import ProcessTree
from tests.benchmarks.random_artefact import publish_random
from tests.benchmarks.rounds import Work, spread, take_turns
from tests.conftest import REPOSITORY

ROUNDS = 15
TEMPLATES = ("a video of {}", "a film of {}", "a clip of {}")
CLASS_LISTS = REPOSITORY / "training" / "evaluate" / "class_lists"
CLIENTS = 16
LABELS = 1000
WORDS = ("red", "small", "running", "old", "wooden", "dog", "river", "piano", "kitchen", "bicycle")


async def main() -> None:
    """Print a line for each measurement."""
    threads = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {threads} cores, load {os.getloadavg()[0]:.1f}, {ROUNDS} rounds")
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "model_store"
    model = sys.argv[2] if len(sys.argv) > 2 else "ViT-B-32-quickgelu"
    if not (root / "active.json").exists():
        publish_random(root, model)
    store = ArtefactStore(root)
    manifest = store.active()
    folder = store.folder(manifest.name, manifest.revision)
    size, frames = manifest.preprocessing.image_size, manifest.frames_per_clip
    slots = FrameSlots(CLIENTS, slot_bytes=3 * frames * size * size)
    encoder = EncoderProcess(folder, manifest=manifest, slots=slots, threads=threads)
    await encoder.start()
    cache = TextCache()
    tokenizer = Tokenizer(folder / "tokenizer.json", manifest.context_length)
    labels = LabelEncoder(encoder, cache=cache, tokenizer=tokenizer)
    try:
        print(f"{manifest.name}: {frames} frames of {size} pixels a clip")
        if len(sys.argv) > 1:
            await cold_labels(labels, encoder, tokenizer, model, threads)
        else:
            await clips(encoder, slots, folder, threads)
        await cached_labels(labels, manifest)
    finally:
        await encoder.stop()
        await cache.close()
        slots.close()


async def clips(encoder: EncoderProcess, slots: FrameSlots, folder: Path, threads: int) -> None:
    """One client, and many, against the network called directly in a loop on the same frames."""
    manifest = encoder.manifest
    model = Model(folder, manifest=manifest, runtime="onnx", threads=threads, device=CPU)
    network = model.build(encoder.clip_weight)
    staging = Staging(model.runtime, device=CPU, preprocessing=manifest.preprocessing)
    size = manifest.preprocessing.image_size
    shape = (1, manifest.frames_per_clip, size, size, 3)
    async with slots.lease(shape) as slot:
        pixels = map_slot(slots.descriptor, slot=slot)
        pixels[...] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

        async def directly() -> object:
            for _ in range(CLIENTS):
                network.video(staging.normalized([pixels]))
            return None

        async def one_by_one() -> object:
            for _ in range(CLIENTS):
                await encoder.encode_clips(slot)
            return None

        async def together() -> object:
            return await asyncio.gather(*(encoder.encode_clips(slot) for _ in range(CLIENTS)))

        works = [directly, one_by_one, together]
        wall, processor = await take_turns(
            works, rounds=ROUNDS, others=ProcessTree(encoder.pid or 0)
        )
    for name, found in (("wall", wall), ("processor", processor)):
        direct = found[:, 0]
        print(f"  {name}: a clip, direct loop {1e3 * np.median(direct) / CLIENTS:8.2f} ms")
        print(
            f"    one client adds        {spread(1e3 * (found[:, 1] - direct) / CLIENTS)} ms a clip"
        )
        print(
            f"    {CLIENTS} clients, throughput {spread(direct / found[:, 2])} of the direct loop"
        )
    cost = encoder.batcher.costs["clips"]
    line = f"{1e3 * cost.seconds_per_unit:.2f} ms·n + {1e3 * cost.seconds_per_batch:.2f} ms"
    print(f"  fitted cost of a batch   {line}; {cost.choose(CLIENTS, cap=64)} clips are chosen")


async def cached_labels(labels: LabelEncoder, manifest: Manifest) -> None:
    """Everything that labels cost in a request once their vectors are there: to scored tags."""
    draw = np.random.default_rng(0)
    pooled = draw.normal(size=manifest.embedding_size).astype(np.float32)
    limits = LabelLimits(max_labels=10 * LABELS)

    def request(count: int, top_k: int | None) -> Work:
        texts = names(count)
        known = normalise_queries([LabelQuery((text,)) for text in texts], limits=limits)

        async def run() -> object:
            asked = tuple(LabelQuery((text,)) for text in texts)
            queries = known if asked == known else ()  # the tagger keeps what it normalised
            vectors = await labels.encode(
                [query.text[0] for query in queries],
                templates=("a video of {}",),
                clip_weight=manifest.default_clip_weight,
            )
            found = LabelVectors(vectors, None)
            label_warnings(queries, found, scores="softmax", few_background=False)
            tags, _ = score_tags(
                pooled, labels=queries, vectors=found, scores="softmax", logit_scale=100.0
            )
            return keep(tags, top_k=top_k, threshold=None)

        return run

    works = [request(1, 5), request(LABELS, 5)]
    for work in works:
        await work()
    wall, processor = await take_turns(works, rounds=ROUNDS, repeat=10)
    for name, found in (("wall", wall), ("processor", processor)):
        more = 100 * (found[:, 1] - found[:, 0])
        print(f"  {name}: {LABELS} cached labels add {spread(more)} ms")


async def cold_labels(
    labels: LabelEncoder, encoder: EncoderProcess, tokenizer: Tokenizer, model: str, threads: int
) -> None:
    """New labels from text to vectors, against open_clip's text tower on 77 tokens each."""
    import torch

    from training.models.network import build

    torch.set_num_threads(threads)
    eager = build(model).eval()
    weight = encoder.clip_weight
    sample = LABELS // 10
    ids = torch.zeros((sample, encoder.manifest.context_length), dtype=torch.int64)
    ids[:, :9], ids[:, 9] = 7, int(eager.state_dict()["token_embedding.weight"].shape[0]) - 1
    sets = {"class names": class_names(LABELS), "longer ones": names(LABELS)}
    found = np.empty((len(TEMPLATES), len(sets) + 1))
    for row, template in enumerate(TEMPLATES):  # another one: other texts of as many tokens
        for column, texts in enumerate(sets.values()):
            began = time.perf_counter()
            await labels.encode(texts, templates=(template,), clip_weight=weight)
            found[row, column] = time.perf_counter() - began
        began = time.perf_counter()
        with torch.inference_mode():
            eager.encode_text(ids)
        found[row, -1] = (time.perf_counter() - began) * LABELS / sample
    print(f"  open_clip eager, 77 tokens   {spread(found[:, -1])} s ({sample} measured)")
    for column, (name, texts) in enumerate(sets.items()):
        tokens, _ = tokenizer.encode([TEMPLATES[0].format(text) for text in texts])
        ours = found[:, column]
        mean = (tokens > 0).sum(1).mean()
        print(f"  {LABELS} cold {name:12s}     {spread(ours)} s, {mean:.1f} tokens each")
        print(f"    ratio                      {spread(found[:, -1] / ours)}")


def class_names(count: int) -> list[str]:
    """Classes of UCF-101, HMDB-51 and Kinetics-600 without Kinetics-400; then the same outdoors."""
    found = dict.fromkeys(
        line.strip()
        for path in sorted(CLASS_LISTS.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    )
    return [*found, *(f"{name} outdoors" for name in found)][:count]


def names(count: int) -> list[str]:
    """Different labels of about ten tokens."""
    return [
        f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} {WORDS[n // 100 % 10]} thing {n}"
        for n in range(count)
    ]


if __name__ == "__main__":
    asyncio.run(main())
