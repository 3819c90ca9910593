"""What the small artefact must answer at a λ, computed in numpy with nothing of the engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import load_manifest
from service.videoclip.pooling import combine_views, pool, text_classifier, unit
from service.videoclip.preprocessing import normalize
from service.videoclip.prompts import TEMPLATES, apply
from service.videoclip.tokenizing import Tokenizer
from tests.service.small_artefact import Arrays, expected_text, expected_video


def reference_scores(
    folder: Path, *, clip_weight: float, film: Path, labels: Sequence[str]
) -> Mapping[str, float]:
    """Return label -> cosine of a video and a label by the artefact in `folder` at one λ."""
    manifest = load_manifest(folder)
    merged = interpolate(
        load_file(folder / "weights_clip.safetensors"),
        load_file(folder / "weights_tuned.safetensors"),
        clip_weight=clip_weight,
    )
    arrays: Arrays = {name: np.asarray(value, np.float32) for name, value in merged.items()}
    clip = decode_clips(
        film, sampling=manifest.sampling, preprocessing=manifest.preprocessing, limits=Limits()
    )
    frames = expected_video(normalize(clip.pixels, manifest.preprocessing), arrays)
    pooled = combine_views(pool(frames, pooling=manifest.pooling)[None], pooling=manifest.pooling)
    templates = TEMPLATES[manifest.template_set]
    tokenizer = Tokenizer(folder / manifest.tokenizer, manifest.context_length)
    ids, _ = tokenizer.encode([apply(each, label) for label in labels for each in templates])
    texts = expected_text(ids, arrays).reshape(len(labels), len(templates), -1)
    cosines = text_classifier(texts) @ unit(pooled)[0]
    return dict(zip(labels, map(float, cosines), strict=True))
