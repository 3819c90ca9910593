"""From a finished run and its curve to an artefact."""

from pathlib import Path

from service.videoclip.manifest import LambdaPoint, Preprocessing, Sampling
from service.videoclip.preprocessing import normalize
from training.artefact import Description
from training.config import ConfigError
from training.curve_report import CURVE_FILE, read_points
from training.data.annotations import LabelledVideo
from training.measure_runs import evaluation_plans
from training.publish import publish
from training.run_config import RunConfig, as_list, recipe_module
from training.run_folder import CLIP_FILE, FACTS_FILE, TUNED_FILE, finished_facts
from training.selection_rule import Choice, choose
from training.start import open_start
from training.variant_sets import variant_sets
from training.video_list import decode_videos
from training.weights import read_weights

_REAL_VIDEOS = 4


def release(config: RunConfig, *, activate: bool, replace: bool) -> Path:
    """Publish the configuration's run at the λ that its rule chooses; returns the folder.

    The graphs in fewer bits that the table `publish` asks for are measured on the sets that λ is
    measured on, and added if they lose little.

    Without a rule λ is the recipe's own, if it has one (`clip_weight` of its settings: FitCLIP's
    ensemble, ViFi-CLIP's plain weights), and a curve is shown where one was measured.
    Raises ConfigError when the run, its curve, or the tables `publish` and `select` are missing, or
    sets to measure variants on, WeightsError when the run's weights are damaged,
    a Refusal when the recipe says that such a run cannot be published; else as
    `training.publish.publish`.
    """
    if config.publish is None:
        raise ConfigError("missing table publish")
    facts = finished_facts(config.run)
    require_free_text = getattr(recipe_module(config.recipe), "require_free_text", None)
    if require_free_text is not None:
        require_free_text(config.settings)
    start = open_start(config.clip)
    points, choice = _chosen(config)
    try:
        sampling = Sampling.model_validate(facts["sampling"])
        preprocessing = Preprocessing.model_validate(facts["preprocessing"])
        architecture, pooling = facts["architecture"], facts["pooling"]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{config.run / FACTS_FILE}: cannot be used: {error!r}") from error
    clip, tuned = (read_weights(config.run / name) for name in (CLIP_FILE, TUNED_FILE))
    videos = as_list(config.data.train).read(labelled=False)[:_REAL_VIDEOS]
    # Their labels do not matter here, and there may be none.
    decoded = decode_videos(
        [LabelledVideo(path=video.path, label="") for video in videos],
        sampling=sampling,
        preprocessing=preprocessing,
        threads=max(1, config.data.workers),
    )
    for path, reason in decoded.failed:
        print(f"left out: {path}: {reason}")
    labelled = None
    if config.publish.variants:
        labelled = variant_sets(
            evaluation_plans(config),
            sampling=sampling,
            preprocessing=preprocessing,
            videos=config.publish.variant_videos,
            threads=max(1, config.data.workers),
        )
    description = Description(
        name=config.publish.name,
        recipe=config.recipe,
        architecture=architecture,
        sampling=sampling,
        preprocessing=preprocessing,
        tokenizer_json=start.tokenizer_json,
        template_set=config.template_set,
        pooling=pooling,
        licence=config.publish.licence,
        default_clip_weight=choice.clip_weight,
        clip_weight_rule=choice.reason,
        curve=points,
        background_labels=config.publish.background_labels,
        provenance=facts,
        card=config.publish.card,
    )
    texts = tuple(text for v in videos for text in (v.label, *v.captions) if text is not None)
    return publish(
        description,
        clip=clip,
        tuned=tuned,
        store=config.publish.store,
        real_clips=normalize(decoded.frames[:, 0], preprocessing),
        real_texts=tuple(dict.fromkeys(texts)),
        evaluation_sets=labelled,
        variants=config.publish.variants,
        variant_bound=config.publish.variant_loss,
        activate=activate,
        replace=replace,
    )


def _chosen(config: RunConfig) -> tuple[tuple[LambdaPoint, ...], Choice]:
    if config.select is None:
        measured = (config.run / CURVE_FILE).is_file()
        return read_points(config.run) if measured else (), _recipes_own(config)
    points = read_points(config.run)
    return points, choose(points, config.select)


def _recipes_own(config: RunConfig) -> Choice:
    """λ of the paper, where the recipe's settings have one."""
    clip_weight = getattr(config.settings, "clip_weight", None)
    if clip_weight is None:
        raise ConfigError("missing table select: no rule to choose λ by")
    return Choice(clip_weight, f"the recipe's own, λ = {clip_weight:g}, not chosen on a curve")
