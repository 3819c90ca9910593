"""The CLIP that a run begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from service.videoclip.manifest import MANIFEST_FILE, Manifest, Preprocessing
from service.videoclip.pooling import TemplateMean
from service.videoclip.prompts import TEMPLATES
from service.videoclip.tokenizing import Tokenizer
from training.config import ConfigError
from training.frozen_classifiers import clip_text
from training.models.network import VideoCLIP, build
from training.opened_artefact import open_artefact
from training.recipe import Encode


@dataclass(frozen=True)
class Start:
    """The CLIP that a run begins with: its artefact, weights, tokenizer and preprocessing."""

    folder: Path
    manifest: Manifest
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    tokenizer_json: str

    @property
    def preprocessing(self) -> Preprocessing:
        """Resize, crop and normalisation, CLIP's own."""
        return self.manifest.preprocessing

    def architecture(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the artefact's network is like, with what a recipe changes about it."""
        return {**self.manifest.architecture, **({} if changes is None else changes)}

    def network(self, changes: Mapping[str, Any] | None = None, *, seed: int = 0) -> VideoCLIP:
        """CLIP's weights in a network that sees neighbouring frames, unless `changes` says other.

        changes: keys of the architecture. Weights that they add are drawn, the same for the same
        seed. Raises ConfigError when the artefact has weights for which such a network has no use.
        """
        changes = {"temporal": "neighbour"} if changes is None else changes
        network = build(self.architecture(changes), seed=seed)
        own = network.state_dict()
        unknown = sorted(set(self.weights) - set(own))
        if unknown:
            raise ConfigError(
                f"clip = {str(self.folder)!r}: has weights that this recipe's network lacks: "
                f"{', '.join(unknown[:5])}"
            )
        network.load_state_dict({**own, **self.weights}, strict=True)
        return network.eval()

    def encoder(self, network: VideoCLIP) -> Encode:
        """Texts -> token ids, int64 (n, L), cut to what the network has room for."""
        tokenizer = Tokenizer(self.folder / "tokenizer.json", network.context_length)

        def encode(texts: list[str]) -> Tensor:
            return torch.from_numpy(tokenizer.encode(texts)[0])

        return encode


def artefact_folder(path: Path) -> Path:
    """The folder of an artefact: `path` itself, or the only revision in it, `model_store/NAME`.

    Raises ConfigError when there are several to choose from.
    """
    if (path / MANIFEST_FILE).is_file() or not path.is_dir():
        return path
    found = sorted(each.parent for each in path.glob(f"[!.]*/{MANIFEST_FILE}"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ConfigError(f"clip = {str(path)!r}: has several revisions, name one: {names}")
    return found[0] if found else path


def open_start(path: Path) -> Start:
    """Load CLIP from its artefact, or from the only one in a folder of a model store.

    Raises ArtefactError when it is missing or altered, ConfigError when there are several.
    """
    folder = artefact_folder(path)
    manifest = open_artefact(folder)
    tokenizer = folder / "tokenizer.json"
    return Start(
        folder=folder,
        manifest=manifest,
        weights=load_file(folder / "weights_clip.safetensors"),
        tokenizer=Tokenizer(tokenizer, manifest.context_length),
        tokenizer_json=tokenizer.read_text(encoding="utf-8"),
    )


def classifier_of(
    network: VideoCLIP,
    labels: Sequence[str],
    *,
    tokenizer: Tokenizer,
    template_set: str,
    template_mean: TemplateMean = "unit",
) -> NDArray[np.float32]:
    """Rows (C, D) of labels in words, by the network's text tower as it is."""
    rows = clip_text(
        network,
        labels,
        encode=lambda texts: torch.from_numpy(tokenizer.encode(texts)[0]),
        templates=TEMPLATES[template_set],
        template_mean=template_mean,
    )
    classifier: NDArray[np.float32] = rows.numpy()
    return classifier
