"""The grid, done: runs in parallel processes, each finished one kept."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from safetensors.torch import save_file

from service.videoclip.prompts import TEMPLATES
from training.reproduction.config import ReproductionConfig
from training.reproduction.grid import EVERYTHING, Run, runs
from training.reproduction.measuring import Scores, measure
from training.reproduction.results import (
    CLIP,
    NEIGHBOURS,
    PER_FRAME,
    Result,
    ResultFolder,
    weights_digest,
)
from training.reproduction.tuning import tune
from training.reproduction.world import BASE, NOVEL, World
from training.run_config import recipe_module
from training.start import open_start

#: What is measured before any training, as if it were a run; its cost is that of a few steps.
UNTRAINED = Run(
    name=CLIP, recipe="open_vclip", sets=(*EVERYTHING, BASE, NOVEL), clip_weights=(1.0,), cost=0.1
)


@dataclass(frozen=True)
class Job:
    """One run with one seed, and the job whose weights it needs."""

    run: Run
    seed: int
    after: "Job | None" = None


def all_runs(config: ReproductionConfig) -> tuple[Run, ...]:
    """What is measured: CLIP itself, and the grid."""
    return (UNTRAINED, *runs(config))


def jobs(config: ReproductionConfig) -> tuple[Job, ...]:
    """In order: each run for all seeds. CLIP itself has nothing random: one seed stands for all."""
    by_name = {run.name: run for run in runs(config)}
    found = [Job(UNTRAINED, config.seeds[0])]
    for run in by_name.values():
        for seed in config.seeds:
            first = None if run.stage_one is None else Job(by_name[run.stage_one], seed)
            found.append(Job(run, seed, first))
    return tuple(found)


def do_jobs(
    config: ReproductionConfig,
    work: Path,
    *,
    stop: Callable[[], bool],
    on_progress: Callable[[float, str], None],
) -> None:
    """Do what is not done yet; results go to the work folder.

    stop: once it says so no run is begun any more; those that run are finished. on_progress: called
    with the cost of what was finished, and its name. An exception of a run stops everything once
    those beside it are through.
    """
    results = ResultFolder(work, config, weights_digest(open_start(config.clip)))
    waiting = [job for job in jobs(config) if results.read(job.run, job.seed) is None]
    if not waiting:
        return
    running: dict[Future[None], Job] = {}
    with ProcessPoolExecutor(
        config.processes,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(config, work),
    ) as pool:
        while waiting or running:
            while waiting and not stop() and len(running) < config.processes:
                job = next((j for j in waiting if _ready(j, results)), None)
                if job is None:
                    break
                waiting.remove(job)
                running[pool.submit(_do, job.run, job.seed)] = job
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                future.result()
                on_progress(job.run.cost, f"{job.run.name}, seed {job.seed}")


def _ready(job: Job, results: ResultFolder) -> bool:
    return job.after is None or results.read(job.after.run, job.after.seed) is not None


class _Bench:
    """What a process keeps between runs."""

    def __init__(self, config: ReproductionConfig, work: Path) -> None:
        torch.set_num_threads(1)
        self.config = config
        self.world = World(work, config.world, config.processes)
        self.start = open_start(config.clip)
        self.results = ResultFolder(work, config, weights_digest(self.start))
        self.runs = {run.name: run for run in all_runs(config)}


_bench: _Bench | None = None


def _begin(config: ReproductionConfig, work: Path) -> None:
    global _bench
    # Ctrl-C reaches the whole group; what has begun is finished, and the parent ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _bench = _Bench(config, work)


def _end_with_parent() -> None:
    """A process of the pool would outlive a parent that was killed, and wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(run: Run, seed: int) -> None:
    assert _bench is not None
    begun = time.monotonic()
    result = _untrained(_bench, seed) if run.name == CLIP else _trained(_bench, run, seed)
    _bench.results.write(run, replace(result, seconds=round(time.monotonic() - begun, 1)))


def _trained(bench: _Bench, run: Run, seed: int) -> Result:
    config = bench.config
    stage_one = None
    if run.stage_one is not None:
        stage_one = bench.results.weights(bench.runs[run.stage_one], seed)
    tuned = tune(
        run, seed, config=config, world=bench.world, start=bench.start, stage_one=stage_one
    )
    scores: dict[str, dict[str, Scores]] = {
        end: measure(
            tuned.network,
            clip=tuned.clip,
            tuned=tuned.ends[end],
            clip_weights=config.clip_weights if run.clip_weights is None else run.clip_weights,
            sets=run.sets,
            world=bench.world,
            pooling=tuned.pooling,
            encode=tuned.encode,
            templates=tuned.templates,
            precision=config.training.precision,
            rows=tuned.rows,
        )
        for end in run.ends
    }
    if run.keep:
        target = bench.results.weights(run, seed)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".partial")
        save_file({n: t.contiguous() for n, t in tuned.ends[run.ends[0]].items()}, aside)
        aside.replace(target)
    return Result(
        run=run.name,
        seed=seed,
        scores=scores,
        first_loss=tuned.losses[0],
        last_loss=tuned.losses[-1],
        seconds=0.0,
    )


def _untrained(bench: _Bench, seed: int) -> Result:
    """CLIP on single frames, and the same weights with neighbour attention."""
    config, scores = bench.config, {}
    for name, temporal in ((PER_FRAME, "none"), (NEIGHBOURS, "neighbour")):
        network = bench.start.network({"temporal": temporal})
        scores[name] = measure(
            network,
            clip=bench.start.weights,
            tuned=bench.start.weights,
            clip_weights=(1.0,),
            sets=UNTRAINED.sets,
            world=bench.world,
            pooling=recipe_module("open_vclip").POOLING,
            encode=bench.start.encoder(network),
            templates=TEMPLATES[config.template_set],
            precision=config.training.precision,
        )
    return Result(run=CLIP, seed=seed, scores=scores, first_loss=0.0, last_loss=0.0, seconds=0.0)
