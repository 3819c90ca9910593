"""Evaluate what was published: the exported graphs, on encoded video files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import load_manifest, verify_files
from service.videoclip.pooling import combine_views, pool, text_classifier
from service.videoclip.preprocessing import normalize
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer
from training.evaluate.zero_shot import ZeroShot, zero_shot
from training.graphs import load_graph
from training.video_list import DecodedVideos, LabelledVideo, decode_videos

Runtime = Literal["onnx", "torchscript"]
_SUFFIX: dict[Runtime, str] = {"onnx": "onnx", "torchscript": "ts"}


class PublishedModel:
    """A published artefact at one λ, run as the service runs it, without the network's code.

    folder: `model_store/<name>/<revision>`. clip_weight: None takes the manifest's default.
    Raises ArtefactError when files are missing or altered, ValueError for a weight outside 0 to 1.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clip_weight: float | None = None,
        runtime: Runtime = "onnx",
        threads: int = 0,
    ) -> None:
        self.manifest = load_manifest(folder)
        verify_files(folder, self.manifest)
        self.clip_weight = (
            self.manifest.default_clip_weight if clip_weight is None else round(clip_weight, 4)
        )
        weights = interpolate(
            load_file(folder / "weights_clip.safetensors"),
            load_file(folder / "weights_tuned.safetensors"),
            clip_weight=self.clip_weight,
        )
        visual = {n: a for n, a in weights.items() if n.startswith("visual.")}
        other = {n: a for n, a in weights.items() if n not in visual}
        suffix = _SUFFIX[runtime]
        self._video = load_graph(folder / f"video_encoder.{suffix}", visual, threads=threads)
        self._text = load_graph(folder / f"text_encoder.{suffix}", other, threads=threads)
        self._tokenizer = Tokenizer(folder / "tokenizer.json", self.manifest.context_length)

    def classifier(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows (C, D) of labels in words, in the artefact's own templates."""
        templates = TEMPLATES[self.manifest.template_set]
        texts = [apply(template, label) for label in labels for template in templates]
        token_ids, _ = self._tokenizer.encode(texts)
        embeddings = self._text(token_ids)
        return text_classifier(embeddings.reshape(len(labels), len(templates), -1))

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One vector for each video. frames: uint8 (n, views, T, S, S, 3) -> float32 (n, D)."""
        pooling = self.manifest.pooling
        vectors = []
        for views in frames:
            clips = normalize(views, self.manifest.preprocessing)  # (views, T, 3, S, S)
            vectors.append(
                combine_views(pool(self._video(clips), pooling=pooling), pooling=pooling)
            )
        return np.stack(vectors)

    def evaluate(self, videos: DecodedVideos, *, classes: Sequence[str]) -> ZeroShot:
        """Zero-shot scores of decoded videos among `classes`, in words."""
        return zero_shot(
            self.embed(videos.frames), self.classifier(classes), videos.label_ids(classes)
        )

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
            sampling=self.manifest.sampling,
            preprocessing=self.manifest.preprocessing,
            threads=threads,
            on_video=on_video,
        )
