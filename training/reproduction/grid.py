"""What is trained: every system and baseline of the five papers, as settings of one engine.

Runs are shared: one serves every table that needs it. They stand in the order in which they are
done, for all seeds one after the other, so that what is interrupted has whole tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from training.reproduction.config import ReproductionConfig, TrainingSettings
from training.reproduction.world import BASE, CLASSES, NOVEL, RETRIEVAL, SOURCE, TARGET
from training.step_config import OptimisationConfig, RegularisationConfig

End = Literal["last", "mean"]
EVERYTHING = (*CLASSES, RETRIEVAL)
PUBLISHED = (0.0, 0.5)

#: What each paper's code has beside the defaults of the engine, which are Open-VCLIP's.
_VIFI = {
    "warmup_share": 0.1,
    "warmup_from_share": 0.0,
    "cosine_from": "start",
    "betas": (0.9, 0.98),
    "weight_decay": 0.001,
    "decay_all": True,
    "clip_norm": 0.0,
}
_FITCLIP = {"schedule": "constant", "warmup_share": 0.0, "decay_all": True, "clip_norm": 0.0}
_TEXT4VIS = {
    "floor_share": 0.0,
    "warmup_share": 0.1,
    "weight_decay": 0.2,
    "decay_all": True,
    "clip_norm": 0.0,
}
# Text4Vis has ten times the tower's rate for its heads; the tower's is what all runs share.
_HEAD_FACTOR = 10.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, for each seed once.

    recipe: a module of `training.recipes`. settings: of its settings' class. data: what it learns
    from: the source or the target, all of it or `shots` videos of each class, of the target
    possibly only the base half. few: whether it takes `few_steps`. ends: which weights are
    measured, the last ones or the mean along the way. clip_weights: at which λ; None for the
    curve's. sets: on which sets. templates: another set than the configuration's. stage_one: the
    run whose weights it begins with. rows: frozen rows of `training.reproduction.words`, which no
    recipe makes. keep: the weights, which another run begins with. cost: in plain fine-tunings of
    `steps`, for the time left.
    """

    name: str
    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    optimisation: dict[str, Any] = field(default_factory=dict)
    regularisation: dict[str, Any] = field(default_factory=dict)
    data: Literal["source", "target", "base"] = "source"
    shots: int | None = None
    few: bool = False
    ends: tuple[End, ...] = ("last",)
    clip_weights: tuple[float, ...] | None = (0.0,)
    sets: tuple[str, ...] = EVERYTHING
    templates: str | None = None
    stage_one: str | None = None
    rows: Literal["words"] | None = None
    keep: bool = False
    cost: float = 1.0

    def steps(self, training: TrainingSettings) -> int:
        """Updates."""
        return training.few_steps if self.few else training.steps

    def optimisation_config(self, training: TrainingSettings) -> OptimisationConfig:
        """The engine's table for this run."""
        return OptimisationConfig(
            **{
                "steps": self.steps(training),
                "batch_size": training.batch_size,
                "peak_learning_rate": training.peak_learning_rate,
                "precision": training.precision,
                **self.optimisation,
            }
        )

    def regularisation_config(self) -> RegularisationConfig:
        """The engine's table for this run."""
        return RegularisationConfig(**self.regularisation)


def runs(config: ReproductionConfig) -> tuple[Run, ...]:
    """Every run, in order; their names are unique."""
    return tuple(
        run
        for family in (
            *(_open_vclip, _open_vclip_pp, _text4vis, _vifi_towers, _fitclip),
            *(_vifi_few, _heads, _vifi_fusions, _text4vis_more, _extra),
        )
        for run in family(config)
    )


def _averaging(training: TrainingSettings) -> dict[str, Any]:
    return {
        "snapshots": training.snapshots,
        "snapshot_start_share": training.snapshot_start_share,
    }


def _interpolating(*, largest: float = 0.6, coefficient: float = 0.5) -> dict[str, Any]:
    """Open-VCLIP's R and C."""
    return {"interpolation_max": largest, "interpolation_coefficient": coefficient}


def _open_vclip(config: ReproductionConfig) -> Iterator[Run]:
    training = config.training
    for name, settings, regularisation, weights, cost in (
        ("plain", {}, _averaging(training), None, 1.4),
        ("iwr", {}, {**_averaging(training), **_interpolating()}, None, 2.4),
        ("l2", {}, {"l2_to_clip": training.l2_to_clip}, PUBLISHED, 1.1),
        ("per-frame", {"temporal": "none"}, {}, None, 1.0),
    ):
        yield Run(
            name=name,
            recipe="open_vclip",
            settings=settings,
            regularisation=regularisation,
            ends=("last", "mean") if "snapshots" in regularisation else ("last",),
            clip_weights=weights,
            cost=cost,
        )


def _text4vis(config: ReproductionConfig) -> Iterator[Run]:
    yield from _rows(config, "clip-text")
    yield from _rows(config, "random-normal")
    yield from _rows(config, "random-orthogonal")


def _text4vis_more(config: ReproductionConfig) -> Iterator[Run]:
    yield from _rows(config, "lda")
    yield from _rows(config, "words")
    if config.sentence_encoder is not None:
        yield from _rows(config, "sentences", sentence_encoder=str(config.sentence_encoder))


def _rows(config: ReproductionConfig, kind: str, **more: Any) -> Iterator[Run]:
    text = kind == "clip-text"
    for few in (True, False):
        yield Run(
            name=f"rows-{kind}-{'few' if few else 'full'}",
            recipe="text4vis",
            settings={
                "classifier": "clip-text" if kind == "words" else kind,
                "temporal_head": "none",
                "tower_factor": 1.0 / _HEAD_FACTOR,
                **more,
            },
            optimisation=_text4vis_rate(config.training),
            shots=config.training.shots[0] if few else None,
            few=few,
            sets=EVERYTHING if text and not few else (SOURCE,),
            rows="words" if kind == "words" else None,
            cost=0.3 if few else 0.8,
        )


def _text4vis_rate(training: TrainingSettings) -> dict[str, Any]:
    return {**_TEXT4VIS, "peak_learning_rate": _HEAD_FACTOR * training.peak_learning_rate}


def _vifi_whole(name: str, *, cost: float, **settings: Any) -> Run:
    return Run(
        name=name,
        recipe="vifi_clip",
        settings=settings,
        optimisation=_VIFI,
        keep=name == "vifi-both",
        cost=cost,
    )


def _vifi_towers(config: ReproductionConfig) -> Iterator[Run]:  # noqa: ARG001
    yield _vifi_whole("vifi-both", cost=1.0)
    yield _vifi_whole("vifi-image", cost=0.8, towers="image")
    yield _vifi_whole("vifi-text", cost=0.6, towers="text")


def _vifi_fusions(config: ReproductionConfig) -> Iterator[Run]:  # noqa: ARG001
    yield _vifi_whole("vifi-decision", cost=1.0, fusion="decision")
    yield _vifi_whole("vifi-frames", cost=1.0, fusion="image")


def _vifi_few(config: ReproductionConfig) -> Iterator[Run]:
    shots = config.training.shots
    prompts = {
        "settings": {"prompts": {"vision": 4, "vision_depth": 4, "text": 4, "text_depth": 2}},
        "optimisation": {**_VIFI, "peak_learning_rate": config.training.prompt_learning_rate},
        "templates": "vifi-clip-prompts",
        "stage_one": "vifi-both",
    }
    tuned: dict[str, Any] = {"optimisation": _VIFI}
    for name, how in (("vifi", tuned), ("prompts", prompts)):
        shared: dict[str, Any] = {"recipe": "vifi_clip", "few": True, "cost": 0.4, **how}
        yield Run(name=f"{name}-base", data="base", shots=shots[-1], sets=(BASE, NOVEL), **shared)
        for count in shots if name == "vifi" else (shots[0], shots[-1]):
            yield Run(
                name=f"{name}-{count}-shot", data="target", shots=count, sets=(TARGET,), **shared
            )


def _fitclip_run(name: str, config: ReproductionConfig, *, weight: float, cost: float) -> Run:
    return Run(
        name=name,
        recipe="fitclip",
        settings={"temperature": 0.05, "distillation_weight": weight},
        optimisation={**_FITCLIP, "peak_learning_rate": config.training.fitclip_learning_rate},
        shots=config.training.shots[1],
        clip_weights=(0.0, 0.6),  # the student, and the published ensemble
        cost=cost,
    )


def _fitclip(config: ReproductionConfig) -> Iterator[Run]:
    yield _fitclip_run("fitclip", config, weight=1e-4, cost=2.3)


def _captions(config: ReproductionConfig, weight: float) -> Run:
    return Run(
        name=f"captions-{weight:g}",
        recipe="open_vclip_pp",
        settings={"caption_weight": weight},
        regularisation={**_averaging(config.training), **_interpolating()},
        ends=("mean",),
        clip_weights=PUBLISHED,
        cost=2.1,
    )


def _open_vclip_pp(config: ReproductionConfig) -> Iterator[Run]:
    yield _captions(config, 4.0)  # 0 is Open-VCLIP itself


def _heads(config: ReproductionConfig) -> Iterator[Run]:
    for head in ("t-trans", "token-t1d", "t1d"):  # the mean, TAP, is rows-clip-text-full
        yield Run(
            name=f"head-{head}",
            recipe="text4vis",
            settings={"temporal_head": head, "tower_factor": 1.0 / _HEAD_FACTOR},
            optimisation=_text4vis_rate(config.training),
            cost=0.9,
        )


def _extra(config: ReproductionConfig) -> Iterator[Run]:
    yield _captions(config, 1.0)
    yield _fitclip_run("fitclip-labels", config, weight=0.0, cost=0.9)
    yield Run(
        name="iwr-strong",  # the demo's R and C
        recipe="open_vclip",
        regularisation={
            **_averaging(config.training),
            **_interpolating(largest=0.9, coefficient=2.0),
        },
        ends=("last", "mean"),
        clip_weights=PUBLISHED,
        cost=2.2,
    )
    yield _vifi_whole("vifi-hard-labels", cost=1.0, objective="paper")
