"""Evaluate what was published: the exported graphs, as the service runs them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import (
    VARIANT_FILES,
    ArtefactError,
    VariantName,
)
from service.videoclip.pooling import text_classifier, unit
from service.videoclip.preprocessing import normalize
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer
from training.data.annotations import LabelledVideo
from training.errors import Refusal
from training.evaluate.model import Way
from training.evaluate.views import video_vectors, view_features
from training.graphs import load_graph
from training.opened_artefact import open_artefact
from training.video_list import DecodedVideos, decode_videos

Runtime = Literal["onnx", "torchscript"]
_SUFFIX: dict[Runtime, str] = {"onnx": "onnx", "torchscript": "ts"}
_ENDS = ("clip", "tuned")
_TEXTS_AT_ONCE = 256


class PublishedModel:
    """`training.evaluate.model.Model` by the graphs of a published artefact, without the network.

    folder: `model_store/<name>/<revision>`. clip_weight: None takes the manifest's default.
    variant: run the graphs in fewer bits, of the manifest's `variants` (ONNX only). Raises
    ArtefactError when files are missing or altered, ValueError for a weight outside 0 to 1.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clip_weight: float | None = None,
        runtime: Runtime = "onnx",
        variant: VariantName | None = None,
        threads: int = 0,
    ) -> None:
        self.manifest = open_artefact(folder)
        self.way = Way(
            sampling=self.manifest.sampling,
            preprocessing=self.manifest.preprocessing,
            pooling=self.manifest.pooling,
            template_set=self.manifest.template_set,
        )
        self.facts: dict[str, Any] = {
            "artefact": f"{self.manifest.name}/{self.manifest.revision}",
            "run_by": runtime if variant is None else f"{runtime}, {variant}",
        }
        self._ends = tuple(load_file(folder / f"weights_{end}.safetensors") for end in _ENDS)
        suffix = _SUFFIX[runtime]
        names = tuple(f"{tower}_encoder.{suffix}" for tower in ("video", "text"))
        if variant is not None:
            names = _files_of(variant, folder, runtime=runtime)
        self._graphs = tuple(folder / name for name in names)
        self._threads = threads
        self._tokenizer = Tokenizer(folder / "tokenizer.json", self.manifest.context_length)
        self.set_clip_weight(
            self.manifest.default_clip_weight if clip_weight is None else clip_weight
        )

    def set_clip_weight(self, clip_weight: float) -> None:
        """Load the graphs with θ(λ)."""
        self.clip_weight = round(clip_weight, 4)
        clip, tuned = self._ends
        weights = interpolate(clip, tuned, clip_weight=self.clip_weight)
        visual = {n: a for n, a in weights.items() if n.startswith("visual.")}
        other = {n: a for n, a in weights.items() if n not in visual}
        self.logit_scale = float(np.exp(weights["logit_scale"]))
        video, text = self._graphs
        self._video = load_graph(video, visual, threads=self._threads)
        self._text = load_graph(text, other, threads=self._threads)

    def classifier(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Rows (C, D) of labels in words, in the templates of `way`."""
        templates = TEMPLATES[self.way.template_set]
        texts = [apply(template, label) for label in labels for template in templates]
        return text_classifier(
            self._embed(texts).reshape(len(labels), len(templates), -1),
            template_mean=self.way.template_mean,
        )

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as they are: unit rows, float32 (n, D)."""
        return unit(self._embed(texts))

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Views as vectors: uint8 (n, V, T, S, S, 3) -> float32 (n, V, D) of `view_features`."""
        pooling = self.way.pooling
        return np.stack(
            [
                view_features(
                    self._video(normalize(views, self.way.preprocessing)), pooling=pooling
                )
                for views in frames
            ]
        )

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One vector for each video, as the service has it: (n, V, T, S, S, 3) -> (n, D)."""
        return video_vectors(self.features(frames), pooling=self.way.pooling)

    def decode(
        self,
        videos: Sequence[LabelledVideo],
        *,
        threads: int = 2,
        on_video: Callable[[], None] | None = None,
    ) -> DecodedVideos:
        """Decode video files with the artefact's own sampling and preprocessing."""
        return decode_videos(
            videos,
            sampling=self.way.sampling,
            preprocessing=self.way.preprocessing,
            threads=threads,
            on_video=on_video,
        )

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            token_ids, _ = self._tokenizer.encode(texts[first : first + _TEXTS_AT_ONCE])
            rows.append(self._text(token_ids))
        return np.concatenate(rows)


def _files_of(variant: VariantName, folder: Path, *, runtime: Runtime) -> tuple[str, ...]:
    if runtime != "onnx":
        raise Refusal(f"variant {variant}: is run by onnx, not by {runtime}")
    names = VARIANT_FILES[variant]
    for name in names:
        if not (folder / name).is_file():
            raise ArtefactError(name, expected=f"the variant {variant}", found="none")
    return names
