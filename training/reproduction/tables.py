"""The tables of the report: what each row is, and which figures stand in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from textwrap import fill

from training.data.motion_world.sets import CLASS_SETS
from training.evaluate.base_to_novel import harmonic_mean
from training.reproduction.config import ReproductionConfig
from training.reproduction.figures import (
    BALANCE,
    CLIP_PER_FRAME,
    CLIP_WITH_NEIGHBOURS,
    T2V,
    V2T,
    At,
    Figures,
)
from training.reproduction.measuring import DIRECTION
from training.reproduction.world import BASE, NOVEL, SOURCE, TARGET

_ZERO_SHOT = CLASS_SETS[1:]
_ALL = (*CLASS_SETS, BALANCE, T2V, V2T)


@dataclass(frozen=True)
class Table:
    """title: also says which tables of the paper it is the miniature of. lines: rows of cells."""

    title: str
    note: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown, with its title as a heading."""
        note = fill(self.note, width=100, break_on_hyphens=False)
        return f"### {self.title}\n\n{note}\n\n{markdown_table(self.head, self.lines)}"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table with a heading, and a line break at its end."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def open_vclip_tables(figures: Figures, config: ReproductionConfig) -> Iterator[Table]:
    """Open-VCLIP, tables 1, 4 and 5."""
    training = config.training
    yield Table(
        "Open-VCLIP: zero-shot and its parts (tables 1, 4 and 5)",
        "λ is the share of CLIP; the published λ is 0.5. IWR has the paper's R = 0.6 and C = 0.5, "
        "the strong one the demo's R = 0.9 and C = 2; SWA is the mean of "
        f"{training.snapshots} points of the second half; ℓ2 has c = {training.l2_to_clip:g}.",
        ("weights", "λ", *_ALL),
        [
            _line(figures, "CLIP, frame by frame", CLIP_PER_FRAME, _ALL),
            _line(figures, "CLIP, with neighbours", CLIP_WITH_NEIGHBOURS, _ALL),
            *(
                _line(figures, name, At(run, end, weight), _ALL)
                for weight in (0.0, 0.5)
                for name, run, end in (
                    ("tuned, frame by frame", "per-frame", "last"),
                    ("plain", "plain", "last"),
                    ("plain + ℓ2", "l2", "last"),
                    ("plain + SWA", "plain", "mean"),
                    ("IWR", "iwr", "last"),
                    ("IWR + SWA: Open-VCLIP", "iwr", "mean"),
                    ("strong IWR", "iwr-strong", "last"),
                    ("strong IWR + SWA", "iwr-strong", "mean"),
                )
            ),
        ],
    )


def open_vclip_pp_tables(figures: Figures, config: ReproductionConfig) -> Iterator[Table]:  # noqa: ARG001
    """Open-VCLIP++, table VII."""
    yield Table(
        "Open-VCLIP++: the weight of captions (table VII)",
        "IWR + SWA; weight 0 is Open-VCLIP. Captions are the world's own full sentences.",
        ("caption weight", "λ", *_ALL),
        [
            _line(figures, name, At(run, "mean", weight), _ALL)
            for weight in (0.0, 0.5)
            for name, run in (("0", "iwr"), ("1", "captions-1"), ("4", "captions-4"))
        ],
    )


def vifi_tables(figures: Figures, config: ReproductionConfig) -> Iterator[Table]:
    """ViFi-CLIP, tables 1, 2, 3 and 5."""
    shots = config.training.shots
    yield Table(
        "ViFi-CLIP: which tower is tuned (table 1), and where frames become a video (table 5)",
        "λ = 0, as published. The source is closed-set, the others are zero-shot.",
        ("weights", *_ALL),
        [
            _line(figures, name, at, _ALL, weight=False)
            for name, at in (
                ("CLIP, frame by frame", CLIP_PER_FRAME),
                ("both towers, mean of embeddings", At("vifi-both")),
                ("visual tower", At("vifi-image")),
                ("text tower", At("vifi-text")),
                ("both, mean of logits", At("vifi-decision")),
                ("both, every frame a picture", At("vifi-frames")),
                ("both, hard labels (no mixing)", At("vifi-hard-labels")),
            )
        ],
    )
    yield Table(
        "ViFi-CLIP: base to novel (table 2)",
        f"Half of the {TARGET} are base, with {shots[-1]} shots. HM is the harmonic mean of the "
        "mean accuracies. Prompts begin with the network that was tuned on the source.",
        ("weights", BASE, NOVEL, "HM"),
        [
            [name, figures.cell(at, BASE), figures.cell(at, NOVEL), _harmonic(figures, at)]
            for name, at in (
                ("CLIP, frame by frame", CLIP_PER_FRAME),
                ("ViFi-CLIP, from CLIP", At("vifi-base")),
                ("bridge and prompt", At("prompts-base")),
            )
        ],
    )
    yield Table(
        "ViFi-CLIP: few shots (table 3)",
        f"Top-1 on {TARGET}, learnt from K videos of each class. CLIP itself: "
        f"{figures.cell(CLIP_PER_FRAME, TARGET)}.",
        ("weights", *(f"K = {count}" for count in shots)),
        [
            [name, *(figures.cell(At(f"{run}-{count}-shot"), TARGET) for count in shots)]
            for name, run in (("ViFi-CLIP, from CLIP", "vifi"), ("bridge and prompt", "prompts"))
        ],
    )


def fitclip_tables(figures: Figures, config: ReproductionConfig) -> Iterator[Table]:
    """FitCLIP, table 3."""
    yield Table(
        "FitCLIP: student and ensemble (table 3)",
        f"{config.training.shots[1]} captioned videos of each class, and all source videos as "
        "unlabelled ones. α is the student's share: the published 0.4 is λ = 0.6.",
        ("weights", "λ", *_ALL),
        [
            _line(figures, "CLIP, frame by frame", CLIP_PER_FRAME, _ALL),
            *(
                _line(figures, f"{name}, {what}", At(run, "last", weight), _ALL)
                for name, run in (
                    ("with distillation", "fitclip"),
                    ("labelled clips alone", "fitclip-labels"),
                )
                for what, weight in (("student", 0.0), ("ensemble", 0.6))
            ),
        ],
    )


def text4vis_tables(figures: Figures, config: ReproductionConfig) -> Iterator[Table]:
    """Text4Vis, tables 6 to 8."""
    few = config.training.shots[0]
    kinds = [
        ("random normal", "random-normal"),
        ("random orthogonal", "random-orthogonal"),
        ("LDA", "lda"),
        ("words (shared words, no meaning)", "words"),
        ("a sentence encoder", "sentences"),
        ("CLIP's text", "clip-text"),
    ]
    without = (
        ""
        if config.sentence_encoder is not None
        else " There was no sentence encoder at hand (`sentence_encoder` in the configuration); "
        '"words" stands in its place.'
    )
    yield Table(
        "Text4Vis: the frozen classifier, few shots and all videos (tables 6 and 8)",
        f"Top-1 on the source, mean of frames. LDA is fitted to at most 60 videos of each class, "
        f"with {few} shots to those alone. Zero-shot, CLIP's text has "
        f"{figures.cell(CLIP_PER_FRAME, SOURCE)}; rows without words have no zero-shot." + without,
        ("rows", f"{few} shots", "all videos"),
        [
            [name, *(figures.cell(At(f"rows-{kind}-{size}"), SOURCE) for size in ("few", "full"))]
            for name, kind in kinds
        ],
    )
    names = (SOURCE, *_ZERO_SHOT, DIRECTION)
    yield Table(
        "Text4Vis: the temporal head (table 7)",
        "CLIP's text as the classifier. *direction*: of unseen nouns whose verb has a reverse, how "
        "often the right one of the two scores higher: 50 % but for chance for a network that "
        "gives a video and its reverse the same vector, as the mean of frames does, and neighbour "
        "attention with it.",
        ("head", *names),
        [
            _line(figures, name, at, names, weight=False)
            for name, at in (
                ("CLIP, frame by frame", CLIP_PER_FRAME),
                ("mean of frames (TAP)", At("rows-clip-text-full")),
                ("T-Trans", At("head-t-trans")),
                ("TokenT1D", At("head-token-t1d")),
                ("T1D", At("head-t1d")),
                ("Open-VCLIP's neighbours, plain", At("plain")),
            )
        ],
    )


def _line(
    figures: Figures, name: str, at: At, names: Sequence[str], *, weight: bool = True
) -> list[str]:
    share = [f"{at.clip_weight:g}"] if weight else []
    return [name, *share, *(figures.cell(at, each) for each in names)]


def _harmonic(figures: Figures, at: At) -> str:
    """Of the means over seeds, as the paper's; the spread is that of each seed's own."""
    base, novel = figures.values(at, BASE), figures.values(at, NOVEL)
    if not base:
        return "–"
    text = f"{harmonic_mean(mean(base.values()), mean(novel.values())):.1f}"
    each = [harmonic_mean(base[seed], novel[seed]) for seed in base]
    return f"{text} ± {stdev(each):.1f}" if len(set(each)) > 1 else text
