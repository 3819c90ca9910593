"""A network between its two ends, run by torch: runs, and artefacts in another attention."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from service.videoclip.manifest import Preprocessing, Sampling, load_manifest
from service.videoclip.pooling import unit
from service.videoclip.tokenizing import Tokenizer
from training.config import ConfigError
from training.evaluate.model import Way
from training.evaluate.zero_shot import embed_views
from training.interpolate import interpolate
from training.models.network import Temporal, VideoCLIP, build
from training.opened_artefact import open_artefact
from training.run_folder import CLIP_FILE, FACTS_FILE, TUNED_FILE, finished_facts
from training.start import artefact_folder, classifier_of
from training.weights import read_weights


class NetworkModel:
    """`training.evaluate.model.Model` by a network.

    clip, tuned: state dicts of `network` at λ = 1 and λ = 0. batch_size: views at once.
    """

    def __init__(
        self,
        network: VideoCLIP,
        *,
        clip: Mapping[str, Tensor],
        tuned: Mapping[str, Tensor],
        tokenizer: Tokenizer,
        way: Way,
        facts: dict[str, Any],
        batch_size: int = 32,
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.way = replace(way, temporal=network.temporal)
        self.facts = {**facts, "device": str(device)}
        self._network = network.eval().to(device)
        self._ends = clip, tuned
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    def set_clip_weight(self, clip_weight: float) -> None:
        """Load θ(λ) into the network."""
        clip, tuned = self._ends
        weights = interpolate(clip, tuned, clip_weight=clip_weight)
        self._network.load_state_dict(weights, strict=True)

    @property
    def logit_scale(self) -> float:
        """At the present λ, as multiplied."""
        return float(self._network.logit_scale.detach().exp())

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Views as vectors: uint8 (n, V, T, S, S, 3) -> float32 (n, V, D)."""
        return embed_views(
            self._network,
            frames,
            preprocessing=self.way.preprocessing,
            pooling=self.way.pooling,
            batch_size=self._batch_size,
        )

    def classifier(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Labels in the model's templates: float32 (C, D), see `Way.template_mean`."""
        return classifier_of(
            self._network,
            labels,
            tokenizer=self._tokenizer,
            template_set=self.way.template_set,
            template_mean=self.way.template_mean,
        )

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as they are: unit rows, float32 (n, D)."""
        rows = []
        device = self._network.logit_scale.device
        for first in range(0, len(texts), self._batch_size):
            token_ids, _ = self._tokenizer.encode(texts[first : first + self._batch_size])
            with torch.no_grad():
                embedded = self._network.encode_text(torch.from_numpy(token_ids).to(device))
            rows.append(embedded.float().cpu().numpy())
        return unit(np.concatenate(rows))


def network_of_run(folder: Path, *, temporal: Temporal | None = None) -> NetworkModel:
    """The network of a finished run, also with another attention than it was trained with.

    Raises ConfigError when the run is not finished or its facts cannot be read, WeightsError when
    its weights cannot, ArtefactError when the CLIP that it began with is missing.
    """
    facts = finished_facts(folder)
    try:
        config = facts["config"]
        network = build(facts["architecture"], temporal=temporal)
        way = Way(
            sampling=Sampling.model_validate(facts["sampling"]),
            preprocessing=Preprocessing.model_validate(facts["preprocessing"]),
            pooling=facts["pooling"],
            template_set=config["template_set"],
        )
        described = {
            "run": folder.name,
            "recipe": facts["recipe"],
            "seed": config["seed"],
            "shots": config.get("data.subset.shots"),
        }
        start = artefact_folder(Path(config["clip"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / FACTS_FILE}: cannot be used: {error!r}") from error
    load_manifest(start)
    return NetworkModel(
        network,
        clip=read_weights(folder / CLIP_FILE),
        tuned=read_weights(folder / TUNED_FILE),
        tokenizer=Tokenizer(start / "tokenizer.json", network.context_length),
        way=way,
        facts={**described, "clip": facts["clip"], "run_by": "network"},
    )


def network_of_artefact(folder: Path, *, temporal: Temporal | None = None) -> NetworkModel:
    """The network of a published artefact, also with another attention than it was published with.

    Raises ArtefactError when files are missing or altered.
    """
    manifest = open_artefact(folder)
    return NetworkModel(
        build(manifest.architecture, temporal=temporal),
        clip=load_file(folder / "weights_clip.safetensors"),
        tuned=load_file(folder / "weights_tuned.safetensors"),
        tokenizer=Tokenizer(folder / "tokenizer.json", manifest.context_length),
        way=Way(
            sampling=manifest.sampling,
            preprocessing=manifest.preprocessing,
            pooling=manifest.pooling,
            template_set=manifest.template_set,
        ),
        facts={"artefact": f"{manifest.name}/{manifest.revision}", "run_by": "network"},
    )
