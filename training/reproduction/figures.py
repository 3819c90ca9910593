"""Figures of finished runs: means and spreads, λ curves, and what is compared with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from service.videoclip.manifest import LambdaPoint
from training.data.motion_world.sets import CLASS_SETS
from training.reproduction.grid import EVERYTHING
from training.reproduction.results import CLIP, NEIGHBOURS, PER_FRAME, Results
from training.reproduction.world import RETRIEVAL

T2V, V2T = f"{RETRIEVAL} t2v", f"{RETRIEVAL} v2t"
#: The mean over all four sets with classes: what one λ for everything has to serve.
BALANCE = "mean of four"
_SHOWN = (*EVERYTHING[:-1], T2V)


@dataclass(frozen=True)
class At:
    """Weights that were measured: a run, which of its ends, and λ. `run` may be CLIP itself."""

    run: str
    end: str = "last"
    clip_weight: float = 0.0


CLIP_PER_FRAME = At(CLIP, PER_FRAME, 1.0)
CLIP_WITH_NEIGHBOURS = At(CLIP, NEIGHBOURS, 1.0)


class Figures:
    """What was measured, by seed."""

    def __init__(self, results: Results, seeds: Sequence[int]) -> None:
        self.results, self.seeds = results, tuple(seeds)

    def values(self, at: At, name: str) -> dict[int, float]:
        """Seed -> %, of the finished seeds. CLIP, which has no seed, has the same for all."""
        if name == BALANCE:
            parts = [self.values(at, each) for each in CLASS_SETS]
            common = set.intersection(*(set(part) for part in parts))
            return {seed: mean(part[seed] for part in parts) for seed in sorted(common)}
        found = self.results.values(at.run, name, end=at.end, clip_weight=at.clip_weight)
        if at.run == CLIP and found:
            return dict.fromkeys(self.seeds, next(iter(found.values())))
        return found

    def cell(self, at: At, name: str) -> str:
        """ "mean ± standard deviation" for a table, "–" for what was not measured."""
        values = list(self.values(at, name).values())
        if not values:
            return "–"
        text = f"{mean(values):.1f}"
        if at.run != CLIP and len(values) > 1:
            text += f" ± {stdev(values):.1f}"
        missing = len(self.seeds) - len(values)
        return f"{text} ({len(values)} of {len(self.seeds)} seeds)" if missing else text

    def curve(self, run: str, *, end: str = "last", clip: At) -> tuple[LambdaPoint, ...]:
        """The run at every λ that was measured, and at 1 `clip`; () before it is finished."""
        weights = self.results.clip_weights(run, end=end)
        found = []
        for at in (*(At(run, end, weight) for weight in weights), clip):
            values = {name: list(self.values(at, name).values()) for name in _SHOWN}
            if all(values.values()):
                found.append(
                    LambdaPoint(
                        clip_weight=at.clip_weight,
                        scores={name: mean(each) for name, each in values.items()},
                        spread={
                            name: stdev(each) if len(each) > 1 and at is not clip else 0.0
                            for name, each in values.items()
                        },
                    )
                )
        return tuple(found) if weights else ()

    def gap(self, better: At, worse: At, name: str) -> dict[int, float]:
        """Seed -> by how many points the one is above the other."""
        above, below = self.values(better, name), self.values(worse, name)
        return {seed: above[seed] - below[seed] for seed in sorted(set(above) & set(below))}

    def above_both(self, middle: At, ends: Sequence[At], name: str) -> dict[int, float]:
        """Seed -> by how many points `middle` is above the best of the ends, of that very seed."""
        gaps = [self.gap(middle, end, name) for end in ends]
        common = set.intersection(*(set(gap) for gap in gaps))
        return {seed: min(gap[seed] for gap in gaps) for seed in sorted(common)}
