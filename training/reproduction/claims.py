"""What the papers claim, as differences that must be positive; and whether they are here.

Claims, comparisons and when one holds were written before any result was there. Those marked
"asked later" came after the first runs of plain fine-tuning, and what is asked of an opposite
after all results: until then an average of zero or below was enough for a no.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from statistics import mean, stdev

from training.reproduction.config import ReproductionConfig
from training.reproduction.figures import (
    BALANCE,
    CLIP_PER_FRAME,
    CLIP_WITH_NEIGHBOURS,
    T2V,
    At,
    Figures,
)
from training.reproduction.measuring import DIRECTION
from training.reproduction.world import BASE, NOVEL, SOURCE, TARGET

HOLDS, OPPOSITE, OPEN = "holds", "the opposite holds", "undecided"
UNFINISHED, MISSING = "unfinished", "not measured"
VERDICTS = (HOLDS, OPEN, OPPOSITE, UNFINISHED, MISSING)
LEAST_POINTS = 1.0
RULE = (
    f"A claim **{HOLDS}** if the difference is positive with every seed and at least "
    f"{LEAST_POINTS:g} point on average; **{OPPOSITE}** if it is negative with every seed and at "
    f"most -{LEAST_POINTS:g} point on average; everything between is **{OPEN}**. Before every seed "
    "is finished there is no verdict."
)
NEAR = ("unseen-pairs", "unseen-nouns")
FAR = "unseen-attributes"
#: Beside the verdicts on a paper whose training here is not the published one; see `remarks`.
MARKS = {"ViFi-CLIP": "†", "FitCLIP": "‡"}


@dataclass(frozen=True)
class Claim:
    """One comparison. text: the claim; compared: what stands for it here; gaps: seed -> points.

    seeds: how many there are to be. mark: of the remark that belongs beside the verdict.
    """

    paper: str
    text: str
    compared: str
    gaps: Mapping[int, float]
    seeds: int = 1
    mark: str = ""

    @property
    def verdict(self) -> str:
        """By `RULE`."""
        values = list(self.gaps.values())
        if not values:
            return MISSING
        if len(values) < self.seeds:
            return UNFINISHED
        if min(values) > 0.0 and mean(values) >= LEAST_POINTS:
            return HOLDS
        return OPPOSITE if max(values) < 0.0 and mean(values) <= -LEAST_POINTS else OPEN

    def row(self) -> list[str]:
        """Cells of a table: paper, claim, comparison, difference, verdict."""
        values = list(self.gaps.values())
        difference = "–"
        if values:
            difference = f"{mean(values):+.1f}"
            if len(values) > 1:
                difference += f" ± {stdev(values):.1f}"
            if len(values) < self.seeds:
                difference += f" ({len(values)} of {self.seeds} seeds)"
        return [self.paper, self.text, self.compared, difference, f"**{self.verdict}**{self.mark}"]


def claims(figures: Figures, config: ReproductionConfig) -> tuple[Claim, ...]:
    """Every claim that was looked for, in the order of the papers."""
    families = (_open_vclip, _open_vclip_pp, _vifi, _fitclip, _text4vis)
    return tuple(
        replace(claim, seeds=len(figures.seeds), mark=MARKS.get(claim.paper, ""))
        for family in families
        for claim in family(figures, config.training.shots)
    )


def _better(
    figures: Figures, paper: str, text: str, compared: str, at: At, than: At, *names: str
) -> Iterator[Claim]:
    """That figures are above those of something else: a claim for each name."""
    for name in names:
        yield Claim(paper, text, f"{compared}: {name}", figures.gap(at, than, name))


def _open_vclip(figures: Figures, shots: Sequence[int]) -> Iterator[Claim]:  # noqa: ARG001
    paper = "Open-VCLIP"
    better = partial(_better, figures, paper)
    plain, swa = At("plain"), At("plain", "mean")
    iwr, both = At("iwr"), At("iwr", "mean")
    yield from better(
        "fine-tuning helps what is near the source",
        "plain, λ = 0, against CLIP frame by frame",
        *(plain, CLIP_PER_FRAME, SOURCE, *NEAR),
    )
    yield from better(
        "fine-tuning alone forgets what is far from it",
        "CLIP frame by frame against plain, λ = 0",
        *(CLIP_PER_FRAME, plain, FAR, T2V),
    )
    for what, tuned in (("plain + SWA", swa), ("Open-VCLIP (IWR + SWA)", both)):
        yield Claim(
            paper,
            "interpolation is a better trade-off than either end",
            f"{what}: λ = 0.5 against the better of λ = 0 and CLIP frame by frame: {BALANCE}",
            figures.above_both(_half(tuned), (tuned, CLIP_PER_FRAME), BALANCE),
        )
        yield Claim(
            paper,
            "interpolation is a better trade-off than either end of its own curve (asked later)",
            f"{what}: λ = 0.5 against the better of λ = 0 and 1, both with neighbours: {BALANCE}",
            figures.above_both(_half(tuned), (tuned, CLIP_WITH_NEIGHBOURS), BALANCE),
        )
    ends: tuple[tuple[float, Callable[[At], At]], ...] = ((0.0, lambda at: at), (0.5, _half))
    for weight, at in ends:
        for what, one, other in (
            ("IWR helps", iwr, plain),
            ("SWA helps", swa, plain),
            ("both together help more than IWR", both, iwr),
            ("both together help more than SWA", both, swa),
        ):
            yield from better(what, f"λ = {weight:g}", at(one), at(other), BALANCE)
    yield from better("IWR forgets less than plain fine-tuning", "λ = 0", iwr, plain, FAR)
    for weight, at in ends:
        text = "Open-VCLIP is better than an ℓ2 pull towards CLIP"
        yield from better(text, f"λ = {weight:g}", at(both), at(At("l2")), BALANCE)
    yield from better(
        "neighbour attention helps",
        "plain against the same without neighbours, λ = 0",
        *(plain, At("per-frame"), SOURCE, *NEAR),
    )


def _open_vclip_pp(figures: Figures, shots: Sequence[int]) -> Iterator[Claim]:  # noqa: ARG001
    paper = "Open-VCLIP++"
    pair = At("captions-4", "mean", 0.5), At("iwr", "mean", 0.5)
    compared = "weight 4 against 0, λ = 0.5"
    retrieval = figures.gap(*pair, T2V)
    classes = figures.gap(*pair, BALANCE)
    yield from _better(figures, paper, "captions help retrieval", compared, *pair, T2V)
    yield from _better(figures, paper, "captions help classification", compared, *pair, BALANCE)
    yield Claim(
        paper,
        "captions help retrieval most",
        f"gain of {T2V} against gain of {BALANCE}",
        {seed: retrieval[seed] - classes[seed] for seed in retrieval if seed in classes},
    )


def _vifi(figures: Figures, shots: Sequence[int]) -> Iterator[Claim]:
    better = partial(_better, figures, "ViFi-CLIP")
    both = At("vifi-both")
    for name in NEAR:
        for what, worse in (
            ("CLIP frame by frame", CLIP_PER_FRAME),
            ("the visual tower alone", At("vifi-image")),
            ("the text tower alone", At("vifi-text")),
        ):
            text = "tuning both towers is best zero-shot"
            yield from better(text, f"both against {what}", both, worse, name)
    for what, worse in (("logits", At("vifi-decision")), ("no fusion", At("vifi-frames"))):
        text = "the mean of embeddings is the best fusion"
        yield from better(text, f"against {what}", both, worse, SOURCE)
    tuned, prompts = At("vifi-base"), At("prompts-base")
    for text, name in (
        ("tuning on base classes helps them", BASE),
        ("and the novel classes, too", NOVEL),
    ):
        yield from better(text, "against CLIP frame by frame", tuned, CLIP_PER_FRAME, name)
    bridge = "bridge and prompt is better than tuning CLIP"
    yield from better(
        bridge, "prompts on the source's network against tuning CLIP", prompts, tuned, BASE, NOVEL
    )
    for few, more in pairwise(shots):
        runs = At(f"vifi-{more}-shot"), At(f"vifi-{few}-shot")
        yield from better("more shots help", f"{more} against {few}", *runs, TARGET)
    for count in (shots[0], shots[-1]):
        runs = At(f"prompts-{count}-shot"), At(f"vifi-{count}-shot")
        yield from better(bridge, f"{count} shots", *runs, TARGET)


def _fitclip(figures: Figures, shots: Sequence[int]) -> Iterator[Claim]:  # noqa: ARG001
    better = partial(_better, figures, "FitCLIP")
    student, ensemble = At("fitclip"), At("fitclip", clip_weight=0.6)
    yield from better(
        "the ensemble is better than CLIP",
        "α = 0.4 (λ = 0.6) against CLIP frame by frame",
        *(ensemble, CLIP_PER_FRAME, *NEAR, FAR, T2V),
    )
    yield from better(
        "the ensemble is better than the student alone",
        "λ = 0.6 against λ = 0",
        *(ensemble, student, *NEAR, FAR, T2V),
    )
    yield from better(
        "unlabelled clips help",
        "ensemble with distillation against without",
        *(ensemble, At("fitclip-labels", clip_weight=0.6), BALANCE),
    )


def _text4vis(figures: Figures, shots: Sequence[int]) -> Iterator[Claim]:
    paper = "Text4Vis"
    gaps = {}
    for size, label in (("full", "all videos"), ("few", f"{shots[0]} shots")):
        text = At(f"rows-clip-text-{size}")
        for kind in ("random-normal", "random-orthogonal", "lda", "words"):
            rows = At(f"rows-{kind}-{size}")
            gaps[kind, size] = figures.gap(text, rows, SOURCE)
            claimed = f"CLIP's text is better than {kind}"
            if kind.startswith("random"):
                claimed = "text-initialised rows beat random ones"
            compared = f"CLIP's text against {kind}, {label}"
            yield from _better(figures, paper, claimed, compared, text, rows, SOURCE)
    for kind in ("random-normal", "random-orthogonal"):
        few, full = gaps[kind, "few"], gaps[kind, "full"]
        yield Claim(
            paper,
            "most of all with few shots",
            f"lead over {kind}, {shots[0]} shots against all videos: {SOURCE}",
            {seed: few[seed] - full[seed] for seed in few if seed in full},
        )
    mean_of_frames = At("rows-clip-text-full")
    heads = ("t-trans", "token-t1d", "t1d")
    for head in heads:
        yield Claim(
            paper,
            f"{head} is better than the mean of frames",
            SOURCE,
            figures.gap(At(f"head-{head}"), mean_of_frames, SOURCE),
        )
    for head in heads:
        yield Claim(
            "(ours)",
            f"{head} can tell a video from its reverse, the mean of frames cannot",
            f"which way, of unseen nouns: {head} against the mean",
            figures.gap(At(f"head-{head}"), mean_of_frames, DIRECTION),
        )


def _half(at: At) -> At:
    return At(at.run, at.end, 0.5)
