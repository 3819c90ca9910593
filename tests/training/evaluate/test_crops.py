"""Three squares of every picture, against whole pictures resized and cut by hand."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_planned
from service.videoclip.manifest import Preprocessing, Sampling
from service.videoclip.pooling import text_classifier, unit
from service.videoclip.sampling import plan
from tests.conftest import REPOSITORY
from tests.drawn_video import draw_video
from training.__main__ import main
from training.evaluate.crops import decode_three_crops, three_boxes
from training.evaluate.embedding import EmbeddingError, embed_once
from training.evaluate.model_folder import open_model
from training.evaluate.views import class_scores

# The model's own resizing is wider than its square; three crops do not look at it.
PREPROCESSING = Preprocessing(
    image_size=20,
    resize_size=24,
    interpolation="bilinear_without_antialias",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


@pytest.fixture(scope="module")
def artefact() -> Path:
    """The demo model."""
    (folder,) = (REPOSITORY / "model_store" / "demo").iterdir()
    return folder


def slow_crops(rgb: NDArray[np.uint8], *, size: int) -> list[NDArray[np.uint8]]:
    """Resize the whole picture by torch, then slice."""
    height, width, _ = rgb.shape
    if width > height:
        new_width, new_height = int(size * width / height), size
    else:
        new_width, new_height = size, int(size * height / width)
    picture = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(
        picture, (new_height, new_width), mode="bilinear", align_corners=False
    )
    whole = resized[0].round().permute(1, 2, 0).numpy().astype(np.uint8)
    if width > height:
        step = (new_width - size) // 2
        return [whole[:, place : place + size] for place in (0, step, 2 * step)]
    step = (new_height - size) // 2
    return [whole[place : place + size] for place in (0, step, 2 * step)]


@pytest.mark.parametrize(("width", "height"), [(96, 40), (40, 96), (64, 64), (70, 46)])
@pytest.mark.parametrize("views", [1, 2])
def test_squares_are_those_of_the_whole_picture(
    tmp_path: Path, width: int, height: int, views: int
) -> None:
    """Of every view and frame, side by side, within a grey level."""
    video = draw_video(tmp_path / "a.mp4", seconds=1.0, width=width, height=height)
    sampling = Sampling(mode="strided", frames=3, views=views, stride_seconds=0.1)
    found = decode_three_crops(video, plan=partial(plan, sampling), preprocessing=PREPROCESSING)
    assert found.shape == (3 * views, 3, 20, 20, 3)
    whole = decode_planned(
        video, plan=lambda timeline: plan(sampling, timeline), shape=np.array, limits=Limits()
    ).pixels
    for view in range(views):
        for frame in range(3):
            for place, square in enumerate(slow_crops(whole[view, frame], size=20)):
                difference = found[3 * view + place, frame].astype(int) - square
                assert np.abs(difference).max() <= 1


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300))
def test_boxes_lie_in_the_picture_and_reach_both_ends(width: int, height: int, size: int) -> None:
    """The first begins at one end, the last ends within a resized pixel or two of the other."""
    boxes = three_boxes(width, height, size=size)
    longer, shorter = max(width, height), min(width, height)
    for left, top, right, bottom in boxes:
        assert 0.0 <= left < right <= width
        assert 0.0 <= top < bottom <= height
    assert boxes[0][:2] == (0.0, 0.0)
    end = boxes[2][2] if width > height else boxes[2][3]
    assert longer - end <= 2.0 * shorter / size * 1.5 + 1e-9


def test_four_clips_of_three_squares_are_twelve_views(artefact: Path, tmp_path: Path) -> None:
    """Every rule sees all twelve; the result says how it was measured."""
    for name in ("red star", "blue drop"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        draw_video(tmp_path / "videos" / name / "0.mp4", seconds=1.0, width=120, height=60)
    path = tmp_path / "videos" / "red star" / "0.mp4"
    model = open_model(artefact, views=4, crops=3)
    features = embed_once({"m": model}, [path], clip_weights=(0.5,)).features["m", 0.5]
    assert features.shape[:2] == (1, 12)
    clips = decode_three_crops(
        path, plan=model.way.clip_plan(path), preprocessing=model.way.preprocessing
    )
    one_by_one = np.concatenate([model.features(clip[None, None])[0] for clip in clips])
    np.testing.assert_allclose(features[0], one_by_one, atol=1e-5)
    classifier = model.classifier(["red star", "blue drop"])
    found = class_scores(
        features, classifier, pooling=model.way.pooling, logit_scale=7.0, rule="sum_of_softmax"
    )
    slow = np.zeros(2)
    for view in one_by_one:
        powers = np.exp(7.0 * (classifier @ view))
        slow += powers / powers.sum()
    np.testing.assert_allclose(found[0], slow, rtol=1e-4)
    other = open_model(artefact, views=4)
    with pytest.raises(EmbeddingError, match="a and b differ in crops"):
        embed_once({"a": model, "b": other}, [path], clip_weights=(0.5,))

    target = tmp_path / "found.json"
    arguments = ["evaluate", str(artefact), str(tmp_path / "videos"), "--json", str(target)]
    arguments += ["--views", "4", "--crops", "3", "--view-rule", "sum_of_softmax"]
    assert main([*arguments, "--template-mean", "plain"]) == 0
    written = json.loads(target.read_text())
    assert (written["crops"], written["sparse_views"]) == (3, 4)
    assert written["template_mean"] == "plain"


def test_fitclip_s_mean_over_templates_keeps_its_length(artefact: Path) -> None:
    """The same directions, each as long as its templates agree; at a single template 1."""
    labels = ["red star", "blue drop"]
    as_served = open_model(artefact).classifier(labels)
    plain = open_model(artefact, template_mean="plain").classifier(labels)
    network = open_model(artefact, template_mean="plain", temporal="none")
    network.set_clip_weight(0.5)
    by_network = network.classifier(labels)
    lengths = np.linalg.norm(plain, axis=-1)
    assert (lengths < 1.0).all()
    assert (lengths > 0.1).all()
    np.testing.assert_allclose(unit(plain), as_served, atol=1e-6)
    np.testing.assert_allclose(by_network, plain, atol=1e-4)
    embeddings = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    slow = np.stack([np.mean([row / np.linalg.norm(row) for row in e], axis=0) for e in embeddings])
    np.testing.assert_allclose(text_classifier(embeddings, template_mean="plain"), slow, atol=1e-6)
