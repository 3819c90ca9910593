"""Results of runs: one JSON file for each run and seed, named by what decides it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from training.reproduction.config import ReproductionConfig
from training.reproduction.grid import Run
from training.start import Start
from training.whole_file import write_whole

#: Goes up when a change of the code changes figures of the same settings.
VERSION = 1
CLIP = "CLIP"  # the name of what is measured without any training
PER_FRAME = "per frame"
NEIGHBOURS = "with neighbours"


@dataclass(frozen=True)
class Result:
    """One run with one seed. scores: end -> λ as ``:g`` -> name -> %. seconds: of all of it."""

    run: str
    seed: int
    scores: dict[str, dict[str, dict[str, float]]]
    first_loss: float
    last_loss: float
    seconds: float


def weights_digest(start: Start) -> str:
    """Of CLIP's weights and tokenizer: what an artefact's other contents do not change."""
    digest = hashlib.sha256(start.tokenizer_json.encode())
    for name, tensor in sorted(start.weights.items()):
        digest.update(name.encode() + _bytes(tensor))
    return digest.hexdigest()


def result_key(run: Run, seed: int, config: ReproductionConfig, clip: str) -> str:
    """Of everything that decides a result. Seeds and processes of the configuration do not."""
    described = {
        "version": VERSION,
        "run": asdict(run) | {"cost": None},
        "seed": seed,
        "clip": clip,
        "world": asdict(config.world),
        "training": asdict(config.training),
        "template_set": config.template_set,
        "clip_weights": config.clip_weights if run.clip_weights is None else None,
    }
    text = json.dumps(described, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ResultFolder:
    """The results in a work folder."""

    def __init__(self, work: Path, config: ReproductionConfig, clip: str) -> None:
        self._folder, self._config, self._clip = work / "results", config, clip

    def path(self, run: Run, seed: int) -> Path:
        """Where this run's result is, or will be."""
        key = result_key(run, seed, self._config, self._clip)
        return self._folder / f"{run.name}-{seed}-{key}.json"

    def weights(self, run: Run, seed: int) -> Path:
        """Where this run's weights are, or will be, if they are kept."""
        return self.path(run, seed).with_suffix(".safetensors")

    def read(self, run: Run, seed: int) -> Result | None:
        """The result, None before it is there."""
        path = self.path(run, seed)
        if not path.exists() or (run.keep and not self.weights(run, seed).exists()):
            return None
        return Result(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, run: Run, result: Result) -> None:
        """Write in one step: a file that is there is whole."""
        path = self.path(run, result.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(result), indent=1))

    def all(self, runs: Sequence[Run]) -> "Results":
        """What is there."""
        found = (self.read(run, seed) for run in runs for seed in self._config.seeds)
        return Results([result for result in found if result is not None])


class Results:
    """Finished runs, by name and seed."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._by = {(result.run, result.seed): result for result in results}

    def __len__(self) -> int:
        return len(self._by)

    def seeds(self, run: str) -> tuple[int, ...]:
        """Of which the run is finished."""
        return tuple(sorted(seed for name, seed in self._by if name == run))

    def values(self, run: str, name: str, *, end: str, clip_weight: float) -> dict[int, float]:
        """Seed -> %, of the seeds that are finished and have it."""
        found = {}
        for seed in self.seeds(run):
            scores = self._by[run, seed].scores.get(end, {}).get(f"{clip_weight:g}", {})
            if name in scores:
                found[seed] = scores[name]
        return found

    def clip_weights(self, run: str, *, end: str) -> tuple[float, ...]:
        """λ that were measured of every finished seed, ascending."""
        measured = [set(self._by[run, s].scores.get(end, {})) for s in self.seeds(run)]
        return tuple(sorted(float(w) for w in set.intersection(*measured))) if measured else ()

    def each(self) -> tuple[Result, ...]:
        """All of them, by name and seed."""
        return tuple(self._by[key] for key in sorted(self._by))

    def document(self) -> list[dict[str, Any]]:
        """All of them as JSON, scores rounded to hundredths of a point."""
        rows = []
        for result in self.each():
            row = asdict(result)
            row["scores"] = _rounded(row["scores"])
            rows.append(row)
        return rows


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 2)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
