"""`make reproduce`: draw, train, measure, and write the report; what is there is not done again."""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from training.config import ConfigError, load_config
from training.provenance import environment
from training.reproduction.config import ReproductionConfig
from training.reproduction.jobs import all_runs, do_jobs, jobs
from training.reproduction.report import Provenance, write_report
from training.reproduction.results import ResultFolder, Results, weights_digest
from training.reproduction.world import World
from training.start import open_start

PROVENANCE_FILE = "environment.json"
FIGURES = "reproduction_figures"


def main(
    *,
    config: Path,
    work: Path,
    output: Path,
    clip: Path | None = None,
    minutes: float | None = None,
    report_only: bool = False,
) -> int:
    """Reproduce, and write REPRODUCTION.md with its figures. Returns the exit code.

    Args:
        config: a TOML file of `ReproductionConfig`.
        work: folder of videos and results; an interrupted run goes on there.
        output: folder of the report.
        clip: an artefact to start from in the place of the configuration's.
        minutes: after these no further run is begun; the report says what is missing.
        report_only: write the report from what is there.

    Raises:
        ConfigError: the configuration cannot be used, or there is nothing to report.
    """
    given = load_config(config, ReproductionConfig)
    settings = given if clip is None else replace(given, clip=clip)
    start = open_start(settings.clip)
    world = World(work, settings.world, settings.processes)
    if start.preprocessing.image_size != world.preprocessing.image_size:
        raise ConfigError(
            f"clip = {str(settings.clip)!r}: takes pictures of {start.preprocessing.image_size} "
            f"pixels, the world has {world.preprocessing.image_size}"
        )
    digest = weights_digest(start)
    results = ResultFolder(work, settings, digest)
    if not report_only:
        work.mkdir(parents=True, exist_ok=True)
        world.draw()
        if any(results.read(job.run, job.seed) is None for job in jobs(settings)):
            described = environment("cpu", precision=settings.training.precision)
            described["threads"] = f"{settings.processes} processes of 1 thread"
            (work / PROVENANCE_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
            _train(settings, work, results, minutes=minutes)
    found = results.all(all_runs(settings))
    if not len(found):
        raise ConfigError(f"{work}: has no results of this configuration and this CLIP")
    provenance = Provenance(
        config_file=config.name,
        clip=f"{start.manifest.name}/{start.manifest.revision}",
        clip_sha256=digest,
        environment=json.loads((work / PROVENANCE_FILE).read_text(encoding="utf-8")),
    )
    path = write_report(settings, found, provenance, output=output, figures=output / FIGURES)
    _say(found, settings)
    print(f"wrote {path}")
    return 0


class _Stop:
    """Whether time is up, or someone asked for an end: SIGINT or SIGTERM. A second one kills."""

    def __init__(self, minutes: float | None) -> None:
        self._deadline = None if minutes is None else time.monotonic() + 60.0 * minutes
        self._asked = False

    def __call__(self) -> bool:
        return self._asked or (self._deadline is not None and time.monotonic() >= self._deadline)

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        print("\nstopping once the runs that have begun are finished", file=sys.stderr)
        self._asked = True
        signal.signal(number, signal.SIG_DFL)


def _train(
    config: ReproductionConfig, work: Path, results: ResultFolder, *, minutes: float | None
) -> None:
    stop = _Stop(minutes)
    before = {each: signal.signal(each, stop.ask) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        _do_all(config, work, results, stop)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _do_all(config: ReproductionConfig, work: Path, results: ResultFolder, stop: _Stop) -> None:
    every = jobs(config)
    total = sum(job.run.cost for job in every)
    done = sum(j.run.cost for j in every if results.read(j.run, j.seed) is not None)
    # The unit is one plain fine-tuning, so that the time left is a fair guess.
    with tqdm(total=round(total, 1), initial=round(done, 1), desc="train", unit="run") as bar:

        def show(cost: float, name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update(cost)

        do_jobs(config, work, stop=stop, on_progress=show)


def _say(found: Results, config: ReproductionConfig) -> None:
    expected = len(jobs(config))
    if len(found) < expected:
        print(f"{len(found)} of {expected} runs are finished; start this again to go on")
