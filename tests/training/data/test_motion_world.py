"""Motion World draws what its words say, and draws the same everywhere."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.videoclip.decoding import Limits, probe
from service.videoclip.manifest import Preprocessing, Sampling
from training.data.annotations import VideoListError, read_video_list
from training.data.motion_world import files, sets, vocabulary
from training.data.motion_world.drawing import Camera, Scene, draw
from training.data.motion_world.motions import path
from training.video_list import decode_videos

MOMENTS = np.linspace(0.0, 0.999, 64)


def _track(verb: str, seed: int = 0):  # type: ignore[no-untyped-def]
    return path(verb, MOMENTS, np.random.default_rng(seed), radius=0.18)


def test_the_world_is_as_large_as_it_says() -> None:
    """It has at least 12 nouns, 8 colours, 3 textures, 16 verbs and 48 source classes."""
    assert len(vocabulary.NOUNS) >= 12
    assert len(vocabulary.COLOURS) >= 8
    assert len(vocabulary.TEXTURES) >= 3
    assert len(vocabulary.VERBS) >= 16
    assert len(set(vocabulary.SOURCE_PAIRS)) == len(vocabulary.SOURCE_PAIRS) >= 48


def test_targets_are_unseen() -> None:
    """No target pair is a source pair, its words are known, and image-only nouns stay out."""
    assert not set(vocabulary.UNSEEN_PAIRS) & set(vocabulary.SOURCE_PAIRS)
    seen_nouns = {noun for noun, _ in vocabulary.SOURCE_PAIRS}
    seen_verbs = {verb for _, verb in vocabulary.SOURCE_PAIRS}
    assert {noun for noun, _ in vocabulary.UNSEEN_PAIRS} <= seen_nouns
    assert {verb for _, verb in vocabulary.UNSEEN_PAIRS} <= seen_verbs == set(vocabulary.VERBS)
    assert not {noun for noun, _ in vocabulary.UNSEEN_NOUN_PAIRS} & seen_nouns


def test_no_noun_has_a_verb_and_its_reverse_in_one_set() -> None:
    """Where the network cannot tell two classes apart by construction, a set has only one."""
    for pairs in (vocabulary.SOURCE_PAIRS, vocabulary.UNSEEN_PAIRS):
        for verb, reverse in vocabulary.OPPOSITES:
            assert not {n for n, v in pairs if v == verb} & {n for n, v in pairs if v == reverse}


def test_source_is_narrow_and_never_names_attributes() -> None:
    """Source labels hold no colour or texture, and source scenes vary little in them."""
    words = {word for label in sets.labels("source") for word in label.split()}
    assert not words & {*vocabulary.COLOURS, *vocabulary.TEXTURES}
    drawn = [example.scene for example in sets.examples("source", "train", count=256, seed=3)]
    assert {scene.colour for scene in drawn} == set(vocabulary.NARROW.colours)
    assert {scene.texture for scene in drawn} == set(vocabulary.NARROW.textures)


@pytest.mark.parametrize("name", ["source", "unseen-pairs", "unseen-nouns", "unseen-attributes"])
def test_classes_take_turns(name: str) -> None:
    """Every class of a set is drawn equally often, and a label's words are in its scene."""
    names = sets.labels(name)
    drawn = list(sets.examples(name, "test", count=2 * len(names), seed=1))
    assert sorted(example.label for example in drawn) == sorted(2 * names)
    for example in drawn:
        assert all(word in example.caption for word in example.label.split())


def test_splits_do_not_share_scenes() -> None:
    """Train, validation and test draw different scenes of the same class."""
    seeds = {
        example.scene.seed
        for split in sets.SPLITS
        for example in sets.examples("source", split, count=50, seed=0)
    }
    assert len(seeds) == 150


GOLDEN = {
    ("star", "moving left"): "37a16a02c723f19b",
    ("pie", "swinging"): "e5decc5aff66c43f",
    ("wheel", "orbiting"): "59a2037bb958325b",
}


@pytest.mark.parametrize(("noun", "verb"), sorted(GOLDEN))
def test_the_same_seed_gives_the_same_pixels(noun: str, verb: str) -> None:
    """A scene's pixels are the ones that were drawn when this test was written, elsewhere."""
    scene = Scene(noun, verb, "cyan", "dotted", "gradient", (7, 1))
    pixels = draw(scene, Camera(pixels=48, frames=4))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[(noun, verb)]


def test_an_image_and_its_caption_are_reproducible() -> None:
    """The picture of an index depends on index and seed only."""
    picture, caption = sets.image(5, seed=2, pixels=40)
    again, same = sets.image(5, seed=2, pixels=40)
    other, _ = sets.image(5, seed=3, pixels=40)
    assert caption == same
    np.testing.assert_array_equal(picture, again)
    assert not np.array_equal(picture, other)


@pytest.mark.parametrize(
    ("verb", "axis", "sign"),
    [
        ("moving left", "x", -1),
        ("moving right", "x", 1),
        ("moving up", "y", -1),
        ("moving down", "y", 1),
        ("growing", "scale", 1),
        ("shrinking", "scale", -1),
        ("spinning clockwise", "turns", 1),
        ("spinning counterclockwise", "turns", -1),
    ],
)
def test_a_verb_goes_its_way_all_the_time(verb: str, axis: str, sign: int) -> None:
    """Directed verbs change their quantity in one direction throughout."""
    change = np.diff(getattr(_track(verb), axis)) * sign
    assert np.all(change > 0)


def test_falling_gets_faster_and_ends_on_the_ground() -> None:
    """A falling object waits, accelerates, and lies still at the end."""
    y = _track("falling").y
    assert y[0] == y[3]
    assert y[-1] == y[-3] == y.max()
    moving = np.diff(y)[np.diff(y) > 0]
    assert np.all(np.diff(moving[:-1]) > 0)


@given(verb=st.sampled_from(vocabulary.VERBS), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_the_centre_of_an_object_stays_in_the_picture(verb: str, seed: int) -> None:
    """Whatever is drawn, the object's centre is visible at every moment."""
    track = _track(verb, seed)
    assert np.all((track.x > 0) & (track.x < 1) & (track.y > 0) & (track.y < 1))
    assert np.all(track.scale > 0)
    assert np.all((track.opacity >= 0) & (track.opacity <= 1))


def test_a_single_picture_of_motion_has_blur() -> None:
    """A longer exposure smears a moving object along its way: finite exposure is real."""
    scene = Scene("square", "moving right", "white", "plain", "dark", (4,))
    short = draw(scene, Camera(frames=1, exposure_seconds=0.001, samples=5, begin_seconds=0.5))
    long = draw(scene, Camera(frames=1, exposure_seconds=0.4, samples=5, begin_seconds=0.5))
    lit = [int((frame[0].max(axis=-1) > 90).any(axis=0).sum()) for frame in (short, long)]
    assert lit[1] > lit[0] + 3


@pytest.mark.parametrize("field", ["noun", "verb", "colour", "texture", "background"])
def test_an_unknown_word_is_refused_by_name(field: str) -> None:
    """A scene with a word that nothing can draw says which field and word."""
    words = {
        "noun": "star",
        "verb": "falling",
        "colour": "red",
        "texture": "plain",
        "background": "dark",
    }
    words[field] = "quux"
    with pytest.raises(ValueError, match=f"{field}: 'quux'"):
        Scene(**words, seed=(1,))


def test_a_set_survives_the_disk(tmp_path: Path) -> None:
    """A written set is real H.264, decodes to the drawn frames, and lists its labels."""
    examples = list(sets.examples("source", "test", count=3, seed=0))
    camera = Camera()
    files.write_set(tmp_path, examples, camera=camera, processes=1, title="write")
    videos = read_video_list(tmp_path / files.LIST_NAME)
    assert [video.label for video in videos] == [example.label for example in examples]
    preprocessing = Preprocessing(image_size=80, mean=(0.5,) * 3, std=(0.5,) * 3)
    sampling = Sampling(mode="uniform", frames=16)
    decoded = decode_videos(videos, sampling=sampling, preprocessing=preprocessing)
    assert decoded.frames.shape == (3, 1, 16, 80, 80, 3)
    for row, example in enumerate(examples):
        drawn = draw(example.scene, camera).astype(int)
        assert np.abs(decoded.frames[row, 0].astype(int) - drawn).mean() < 8
    info = probe(videos[0].path, limits=Limits())
    assert (info.codec, info.duration_seconds, info.frame_count) == ("h264", 2.0, 16)


def test_an_interrupted_set_is_not_read(tmp_path: Path) -> None:
    """A folder without its list, which is written last, does not pass for a set."""
    with pytest.raises(VideoListError):
        read_video_list(tmp_path / files.LIST_NAME)
