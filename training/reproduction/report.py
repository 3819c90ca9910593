"""The report: what was done, which claims hold, the tables and the pictures."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from training.curve_picture import Line, draw_lines
from training.reproduction.claims import RULE, VERDICTS, Claim, claims
from training.reproduction.config import ReproductionConfig
from training.reproduction.figures import (
    CLIP_PER_FRAME,
    CLIP_WITH_NEIGHBOURS,
    T2V,
    Figures,
)
from training.reproduction.grid import Run
from training.reproduction.jobs import all_runs, jobs
from training.reproduction.remarks import (
    beside_verdicts,
    deviations,
    not_reproduced,
    rule_history,
)
from training.reproduction.results import CLIP, Results
from training.reproduction.tables import (
    fitclip_tables,
    markdown_table,
    open_vclip_pp_tables,
    open_vclip_tables,
    text4vis_tables,
    vifi_tables,
)
from training.reproduction.world import SOURCE
from training.whole_file import write_whole

REPORT = "REPRODUCTION.md"
RESULTS_FILE = "results.json"
_TARGETS = ("unseen-pairs", "unseen-nouns", "unseen-attributes", T2V)


@dataclass(frozen=True)
class Provenance:
    """config_file: its name. clip: the artefact. clip_sha256: of its weights and tokenizer."""

    config_file: str
    clip: str
    clip_sha256: str
    environment: dict[str, Any]


def write_report(
    config: ReproductionConfig,
    results: Results,
    provenance: Provenance,
    *,
    output: Path,
    figures: Path,
) -> Path:
    """Write REPRODUCTION.md into `output`, pictures and figures as JSON into the other folder."""
    figures.mkdir(parents=True, exist_ok=True)
    seen = Figures(results, config.seeds)
    pictures = _pictures(seen, figures)
    document = {
        "config": _plain(asdict(config)),
        "provenance": asdict(provenance),
        "results": results.document(),
    }
    write_whole(figures / RESULTS_FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    links = [f"![{title}]({figures.name}/{name})" for title, name in pictures]
    sections = [
        _head(config, results, provenance),
        _claims(seen, config),
        deviations(config),
        not_reproduced(config),
        "## Tables\n",
        *(
            table.markdown()
            for family in (
                *(open_vclip_tables, open_vclip_pp_tables, vifi_tables),
                *(fitclip_tables, text4vis_tables),
            )
            for table in family(seen, config)
        ),
        "## λ curves (figures 2 to 4)\n",
        "Each line goes from λ = 0, what was tuned, to λ = 1, CLIP itself; λ stands beside one "
        "line. Bars are standard deviations over seeds.\n",
        "\n\n".join(links) + "\n" if links else "No curve is finished yet.\n",
        _runs(config, results),
    ]
    path = output / REPORT
    write_whole(path, "\n".join(sections))
    return path


def _head(config: ReproductionConfig, results: Results, provenance: Provenance) -> str:
    world, training, machine = config.world, config.training, provenance.environment
    expected, found = len(jobs(config)), len(results)
    state = f"All {expected} runs are finished."
    if found < expected:
        state = (
            f"**{found} of {expected} runs are finished**; figures that are missing are a dash, or "
            "say of how many seeds they are. The same command goes on with them."
        )
    hours = sum(result.seconds for result in results.each()) / 3600.0
    seeds = ", ".join(str(seed) for seed in config.seeds)
    paragraphs = [
        f"Written by `python -m training reproduce` (`make reproduce`) from "
        f"`{provenance.config_file}`, seeds {seeds}; do not edit it. {state} Figures are % on test "
        "videos, mean ± sample standard deviation over the seeds of the training; a figure without "
        "a deviation has nothing random in it, or one seed. Every single figure is in "
        "`results.json`, beside the pictures.",
        "*What this can show.* Whether effects that the papers report on real films, with a CLIP "
        "of 150 million weights and more, have the same sign with a CLIP of a million weights on "
        "drawn ones, after a short training. Sizes of effects do not carry over. A test set has "
        f"{world.test_videos} videos: one figure alone has a standard error of up to "
        f"{50.0 / world.test_videos**0.5:.1f} points, the difference of two runs on the same "
        "videos a smaller one. The deviation over seeds knows only what training draws: not "
        "another world, not another CLIP.",
        "*What was fixed before any result of a training was seen:* world, seeds, steps, one "
        f"learning rate ({training.peak_learning_rate:g}, the demo's) for CLIP's weights in every "
        f"run but FitCLIP's ({training.fitclip_learning_rate:g}) and the prompts' "
        f"({training.prompt_learning_rate:g}), λ = 0.5 where a claim needs one λ, the claims (but "
        "one, marked) and when one holds; when its opposite does was changed afterwards, see "
        "there. No setting was changed, and all that was run is reported. Where settings are not "
        "the published ones a section of its own says so.",
        f"*How.* CLIP is the λ = 1 end of `{provenance.clip}`. The source has "
        f"{world.source_videos:,} videos of 64 classes; a run on it takes {training.steps} steps "
        f"of {training.batch_size} clips, a run on a few videos {training.few_steps}. Motion World "
        f"with seed {world.seed}; H.264 at 80 x 80, shown to the network as 8 frames of 40 x 40. "
        "The *source* names nouns and verbs, and varies colours and textures little; *unseen "
        "pairs* are its words in new combinations; *unseen nouns* only CLIP has seen; *unseen "
        "attributes* ask for colours and textures, which the source never names. Neighbour "
        "attention with the mean over frames cannot tell a video from its reverse, and unseen "
        "nouns ask for that: such a network reaches 75 % there, but for luck.",
        f"*Where.* {machine.get('device')}; {machine.get('threads')}; {machine.get('precision')}; "
        f"torch {machine.get('torch')}, Python {machine.get('python')}; other work ran beside it. "
        f"{hours:.1f} hours in all runs together. CLIP's sha256 "
        f"`{provenance.clip_sha256[:16]}`, commit `{machine.get('git_commit')}`.",
    ]
    body = "\n\n".join(fill(text, width=100, break_on_hyphens=False) for text in paragraphs)
    return f"# The five papers in miniature\n\n{body}\n"


def _claims(figures: Figures, config: ReproductionConfig) -> str:
    found = claims(figures, config)
    counted = Counter(claim.verdict for claim in found)
    total = ", ".join(f"{verdict}: {counted[verdict]}" for verdict in VERDICTS if counted[verdict])
    grouped: dict[tuple[str, str], list[Claim]] = {}
    for claim in found:
        grouped.setdefault((claim.paper, claim.text), []).append(claim)
    short = [
        [paper, text, _verdicts([claim.verdict for claim in group]) + group[0].mark]
        for (paper, text), group in grouped.items()
    ]
    words = f"{RULE} {len(found)} comparisons: {total}."
    head = ["paper", "claim", "looked for here as", "points", "verdict"]
    return (
        f"## Claims\n\n{fill(words, width=100)}\n\n{fill(rule_history(found), width=100)}\n\n"
        f"{markdown_table(['paper', 'claim', 'here'], short)}\n"
        f"{beside_verdicts(figures, config)}\n"
        f"### Each comparison\n\n"
        f"{markdown_table(head, [claim.row() for claim in found])}"
    )


def _verdicts(verdicts: Sequence[str]) -> str:
    """ "holds", or "holds: 2, undecided: 1"."""
    counted = Counter(verdicts)
    if len(counted) == 1:
        only = verdicts[0]
        return f"**{only}**" if len(verdicts) == 1 else f"**{only}** (all {len(verdicts)})"
    return ", ".join(f"{verdict}: {counted[verdict]}" for verdict in VERDICTS if counted[verdict])


def _pictures(figures: Figures, folder: Path) -> list[tuple[str, str]]:
    """Draw what is finished; returns title and file name of each."""
    neighbours = CLIP_WITH_NEIGHBOURS
    systems = [
        ("CLIP tuned frame by frame", figures.curve("per-frame", clip=CLIP_PER_FRAME)),
        ("plain fine-tuning", figures.curve("plain", clip=neighbours)),
        ("Open-VCLIP", figures.curve("iwr", end="mean", clip=neighbours)),
    ]
    parts = [
        ("plain", figures.curve("plain", clip=neighbours)),
        ("plain + SWA", figures.curve("plain", end="mean", clip=neighbours)),
        ("IWR", figures.curve("iwr", clip=neighbours)),
        ("IWR + SWA", figures.curve("iwr", end="mean", clip=neighbours)),
        ("plain + ℓ2", figures.curve("l2", clip=neighbours)),
        ("strong IWR + SWA", figures.curve("iwr-strong", end="mean", clip=neighbours)),
    ]
    drawn = []
    wanted = [("systems", systems, target) for target in _TARGETS]
    wanted.append(("parts", parts, "unseen-attributes"))
    for kind, curves, target in wanted:
        lines = [
            Line(name=name, points=points, x=SOURCE, y=target) for name, points in curves if points
        ]
        if not lines:
            continue
        title = f"{target} against the source, {kind}"
        name = f"{kind}-{target.replace(' ', '-')}.svg"
        draw_lines(
            lines, folder / name, x_label=f"{SOURCE}, %", y_label=f"{target}, %", title=title
        )
        drawn.append((title, name))
    return drawn


def _runs(config: ReproductionConfig, results: Results) -> str:
    head = ["run", "recipe", "settings", "steps", "seeds", "seconds", "loss, first to last"]
    rows: list[Sequence[str]] = []
    for run in all_runs(config):
        if run.name == CLIP:
            continue
        own = [result for result in results.each() if result.run == run.name]
        seconds = f"{sum(r.seconds for r in own) / len(own):.0f}" if own else "–"
        losses = f"{own[0].first_loss:.2f} to {own[0].last_loss:.2f}" if own else "–"
        seeds = ", ".join(str(result.seed) for result in own) or "none yet"
        steps = str(run.steps(config.training))
        rows.append([run.name, run.recipe, _settings(run), steps, seeds, seconds, losses])
    return (
        "## Runs\n\nSeconds are the mean over seeds, with measuring, beside other work; losses are "
        "of the first seed, and of different things in different recipes.\n\n"
        f"{markdown_table(head, rows)}"
    )


def _settings(run: Run) -> str:
    given = {**run.settings, **run.regularisation}
    if run.shots is not None:
        given["shots"] = run.shots
    if run.data != "source":
        given["data"] = run.data
    if run.stage_one is not None:
        given["stage_one"] = run.stage_one
    if run.rows is not None:
        given["classifier"] = run.rows
    return ", ".join(f"{name} {_short(value)}" for name, value in given.items()) or "–"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """For JSON: paths as text."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value
