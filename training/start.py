"""The CLIP that a run begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from service.videoclip.manifest import Manifest, Preprocessing, load_manifest, verify_files
from service.videoclip.pooling import text_classifier
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer
from training.models.network import VideoCLIP, build


@dataclass(frozen=True)
class Start:
    """The CLIP that a run begins with: its artefact, weights, tokenizer and preprocessing."""

    manifest: Manifest
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    tokenizer_json: str

    @property
    def preprocessing(self) -> Preprocessing:
        """Resize, crop and normalisation, CLIP's own."""
        return self.manifest.preprocessing

    def network(self) -> VideoCLIP:
        """CLIP's weights in a network that sees neighbouring frames."""
        network = build(self.manifest.architecture, temporal="neighbour")
        network.load_state_dict(self.weights, strict=True)
        return network.eval()


def open_start(folder: Path) -> Start:
    """Load CLIP from its artefact. Raises ArtefactError when it is missing or altered."""
    manifest = load_manifest(folder)
    verify_files(folder, manifest)
    tokenizer = folder / "tokenizer.json"
    return Start(
        manifest=manifest,
        weights=load_file(folder / "weights_clip.safetensors"),
        tokenizer=Tokenizer(tokenizer, manifest.context_length),
        tokenizer_json=tokenizer.read_text(encoding="utf-8"),
    )


def classifier_of(
    network: VideoCLIP, labels: Sequence[str], *, tokenizer: Tokenizer, template_set: str
) -> NDArray[np.float32]:
    """Unit rows (C, D) of labels in words, by the network's text tower as it is."""
    templates = TEMPLATES[template_set]
    rows = []
    for label in labels:
        token_ids, _ = tokenizer.encode([apply(template, label) for template in templates])
        with torch.no_grad():
            rows.append(network.encode_text(torch.from_numpy(token_ids)).numpy())
    return text_classifier(np.stack(rows))
