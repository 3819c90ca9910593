"""MODEL_CARD.md: what an artefact is, what was measured, and what it cannot do."""

from collections.abc import Iterable, Sequence

from service.videoclip.manifest import LambdaPoint, Manifest, Variant

# The card's bytes are listed in the manifest, and a fit changes the manifest alone.
_CALIBRATION = (
    "Whether `scores=independent` has been fitted to labelled videos is not written here: "
    "`python -m training calibrate` puts the fit, with its reliability before and after, under "
    "`calibration` into `manifest.json`. Without that key these scores are not probabilities."
)


def model_card(manifest: Manifest, *, text: str) -> str:
    """Markdown. `text`: the author's own paragraphs on what the model can and cannot do."""
    sampling = manifest.sampling
    facts = [
        ("recipe", manifest.recipe),
        ("revision", manifest.revision),
        ("licence", manifest.licence),
        ("embedding size", str(manifest.embedding_size)),
        ("frames", f"{sampling.frames}, {sampling.mode}, {sampling.views} view(s)"),
        ("image size", f"{manifest.preprocessing.image_size} pixels"),
        ("templates", manifest.template_set),
        ("text tower", "fine-tuned" if manifest.text_tower_tuned else "CLIP's own"),
        ("default λ", f"{manifest.default_clip_weight:g}: {manifest.clip_weight_rule}"),
    ]
    parts = [f"# {manifest.name}", text.strip(), _table(("fact", "value"), facts)]
    if manifest.curve:
        parts += ["## Measured", _curve(manifest.curve)]
    worst: dict[str, float] = {}
    for parity in manifest.parity:
        worst[parity.graph] = max(worst.get(parity.graph, 0.0), parity.max_rel_error)
    parts += [
        "## Exports",
        "Largest error relative to the largest output of the network they were exported from; "
        "every λ, batch size and kind of input is in the manifest.",
        _table(("graph", "error"), [(name, f"{error:.1e}") for name, error in worst.items()]),
    ]
    if manifest.variants:
        parts += ["## In fewer bits", _variants(manifest.variants)]
    parts += ["## Independent scores", _CALIBRATION]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure(point: LambdaPoint, name: str) -> str:
    """A set's score at one λ, in %, and its spread where one was measured."""
    spread = f" ± {point.spread[name]:.1f}" if name in point.spread else ""
    return f"{point.scores[name]:.1f}{spread}"


def without_spread_of_one(curve: Sequence[LambdaPoint]) -> tuple[LambdaPoint, ...]:
    """The curve without its spreads if they are all 0: one seed has none, and must not claim one.

    At λ = 1 seeds agree exactly, so a single 0 says nothing; several seeds differ somewhere.
    """
    if any(value for point in curve for value in point.spread.values()):
        return tuple(curve)
    return tuple(point.model_copy(update={"spread": {}}) for point in curve)


def _curve(curve: Sequence[LambdaPoint]) -> str:
    names = list(curve[0].scores)
    rows = [(f"{point.clip_weight:g}", *(figure(point, name) for name in names)) for point in curve]
    several = any(point.spread for point in curve)
    kind = "mean ± standard deviation over seeds" if several else "one seed"
    note = f"λ is the share of the original CLIP; %, {kind}.\n\n"
    return note + _table(("λ", *names), rows)


def _variants(variants: Sequence[Variant]) -> str:
    sets = list(variants[0].top1_loss)
    weights = ", ".join(f"{weight:g}" for weight in variants[0].clip_weights)
    rows = [
        (
            variant.name,
            variant.runtime,
            *(f"{variant.top1_loss[name]:.2f}" for name in sets),
            f"{variant.bound:g}",
        )
        for variant in variants
    ]
    note = (
        "Points of top-1 that these graphs lose against the full ones, the most at λ = "
        f"{weights}; below 0 they gain. A form that loses more than the bound is not published.\n\n"
    )
    return note + _table(("form", "runtime", *sets, "bound"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
