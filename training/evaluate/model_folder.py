"""From a folder to a model: a run's, or a published artefact's."""

import json
from dataclasses import replace
from pathlib import Path

from service.videoclip.manifest import MANIFEST_FILE, VariantName
from service.videoclip.pooling import TemplateMean
from service.videoclip.prompts import TEMPLATES
from training.errors import Refusal
from training.evaluate.artefact import PublishedModel, Runtime
from training.evaluate.closed_set import with_own_classifier
from training.evaluate.crops import Crops
from training.evaluate.model import Model, Way
from training.evaluate.network_model import network_of_artefact, network_of_run
from training.models.network import Temporal
from training.run_folder import FACTS_FILE

_SPARSE = ("uniform", "segment_starts")


class ModelError(Refusal):
    """A folder that holds no model, or a way of showing it videos that there is not."""


def open_model(
    folder: Path,
    *,
    runtime: Runtime = "onnx",
    variant: VariantName | None = None,
    temporal: Temporal | None = None,
    template_set: str | None = None,
    views: int | None = None,
    crops: Crops = 1,
    template_mean: TemplateMean = "unit",
    threads: int = 0,
) -> Model:
    """The model of a run's folder or of a published artefact.

    runtime, variant: of an artefact's graphs. temporal: another attention than the model's own;
    then torch runs the network. template_set: other templates than its own. views: so many
    clips, see `other_way`. crops, template_mean: see `Way`. Raises ModelError
    when it is neither, or for an unknown template set; ArtefactError when an artefact is damaged.
    """
    model: Model
    published = (folder / MANIFEST_FILE).is_file() and not (folder / FACTS_FILE).is_file()
    if variant is not None and (temporal is not None or not published):
        raise ModelError(f"--variant {variant}: of an artefact's graphs, which torch does not run")
    if (folder / FACTS_FILE).is_file():
        model = with_own_classifier(network_of_run(folder, temporal=temporal), folder)
    elif not (folder / MANIFEST_FILE).is_file():
        raise ModelError(
            f"{folder}: neither a finished run ({FACTS_FILE}) nor an artefact ({MANIFEST_FILE})"
        )
    elif temporal is not None:
        model = network_of_artefact(folder, temporal=temporal)
    else:
        model = PublishedModel(folder, runtime=runtime, variant=variant, threads=threads)
    way = other_way(model.way, template_set=template_set, views=views)
    model.way = replace(way, crops=crops, template_mean=template_mean)
    return model


def default_clip_weight(folder: Path) -> float:
    """An artefact's own λ; of a run, which has none, the tuned end.

    Raises ModelError for neither.
    """
    manifest = folder / MANIFEST_FILE
    if manifest.is_file() and not (folder / FACTS_FILE).is_file():
        weight: float = json.loads(manifest.read_text(encoding="utf-8"))["default_clip_weight"]
        return weight
    return 0.0


def other_way(way: Way, *, template_set: str | None = None, views: int | None = None) -> Way:
    """The way with other templates, or with so many clips of a video.

    Clips stay of the model's mode: strided ones are spread over the video; where the model's own
    clip reaches over the whole video, several are `training.evaluate.clip_plans.sparse_times`, and
    one is its own. Raises ModelError for an unknown template set, and for views that there are not.
    """
    if template_set is not None:
        if template_set not in TEMPLATES:
            raise ModelError(f"--templates {template_set}: one of {', '.join(sorted(TEMPLATES))}")
        way = replace(way, template_set=template_set)
    if views is not None:
        if not 1 <= views <= 64:
            raise ModelError(f"--views {views}: not within 1 and 64")
        mode = way.sampling.mode
        if mode == "strided":
            way = replace(way, sampling=way.sampling.model_copy(update={"views": views}))
        elif views == 1 or mode in _SPARSE:
            way = replace(way, sparse_views=views)
        else:
            raise ModelError(f"--views {views}: the model is shown {mode} pictures, in one view")
    return way
