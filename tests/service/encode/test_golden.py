"""The golden check: what is not right is refused, and said in one line."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from service.encode.device import CPU, Device
from service.encode.golden import bad_rows, check
from service.encode.runtime import Model, Network, Tower
from service.videoclip.golden import GoldenOutputs, Outputs, VariantError
from service.videoclip.manifest import ArtefactError, Manifest
from tests.service.encode.started import CLIP, TUNED
from tests.service.small_artefact import publish


@pytest.fixture
def made(tmp_path: Path) -> tuple[Network, Manifest]:
    """A network that is right."""
    manifest = publish(tmp_path, clip=CLIP, tuned=TUNED)
    folder = tmp_path / manifest.name / manifest.revision
    model = Model(folder, manifest=manifest, runtime="onnx", threads=1, device=CPU)
    return model.build(0.5), manifest


def _with(network: Network, *, video: Tower | None = None, text: Tower | None = None) -> Network:
    return Network(
        network.clip_weight, video or network.video, text or network.text, network.logit_scale
    )


def test_a_network_that_is_right_passes_again_and_again(made: tuple[Network, Manifest]) -> None:
    """And says how long a clip and a text take."""
    network, manifest = made
    golden = check(network, manifest=manifest, precision="float32")
    again = check(network, manifest=manifest, precision="float32", before=golden)
    assert np.array_equal(golden.video, again.video)
    assert golden.clip_seconds > 0
    assert golden.text_seconds > 0


def test_other_values_than_before_are_refused(made: tuple[Network, Manifest]) -> None:
    """The weights at a λ cannot have changed while the process lives: something is broken."""
    network, manifest = made
    golden = check(network, manifest=manifest, precision="float32")
    other = _with(network, video=lambda values: network.video(values) * np.float32(1.01))
    with pytest.raises(ArtefactError, match=r"video_encoder at clip_weight 0\.5: .*was before"):
        check(other, manifest=manifest, precision="float32", before=golden)


def test_values_that_change_from_call_to_call_are_refused(made: tuple[Network, Manifest]) -> None:
    """As memory that nobody wrote would give."""
    network, manifest = made
    draw = np.random.default_rng(0)
    noisy = _with(
        network,
        text=lambda values: network.text(values) + draw.normal(size=8).astype(np.float32),
    )
    with pytest.raises(ArtefactError, match=r"text_encoder .*the same at a second call"):
        check(noisy, manifest=manifest, precision="float32")


def test_a_clip_must_not_see_its_neighbours_in_the_batch(made: tuple[Network, Manifest]) -> None:
    """A graph that mixes the clips of a batch would answer one client with another's video."""
    network, manifest = made

    def mixing(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        vectors = network.video(values)
        mixed: npt.NDArray[np.float32] = vectors + vectors.sum(axis=0, keepdims=True) * len(values)
        return mixed

    with pytest.raises(ArtefactError, match="the same in a batch as alone"):
        check(_with(network, video=mixing), manifest=manifest, precision="float32")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_direction_is_refused(made: tuple[Network, Manifest], value: float) -> None:
    """Zero, NaN and infinity have none."""
    network, manifest = made
    empty = _with(network, text=lambda values: np.full((len(values), 8), value, np.float32))
    with pytest.raises(ArtefactError, match="zero or not finite"):
        check(empty, manifest=manifest, precision="float32")


def test_another_shape_is_refused(made: tuple[Network, Manifest]) -> None:
    """Both shapes are in the line."""
    network, manifest = made
    short = _with(network, video=lambda values: network.video(values)[:, :1])
    with pytest.raises(ArtefactError, match=r"expected output \(1, 3, 8\), found \(1, 1, 8\)"):
        check(short, manifest=manifest, precision="float32")


def _published(network: Network, manifest: Manifest) -> GoldenOutputs:
    golden = check(network, manifest=manifest, precision="float32")
    outputs = {network.clip_weight: Outputs(golden.video, golden.text)}
    return GoldenOutputs(outputs, {"int8": VariantError(video=0.1, text=0.0)})


@pytest.mark.parametrize("tower", ["video", "text"])
def test_other_values_than_published_are_refused(
    made: tuple[Network, Manifest], tower: str
) -> None:
    """Of either tower, however consistent they are; at a λ of which nothing is published, not."""
    network, manifest = made
    published = _published(network, manifest)
    check(network, manifest=manifest, precision="float32", published=published)
    right: Tower = getattr(network, tower)
    other = _with(network, **{tower: lambda values: right(values) * np.float32(1.002)})
    line = rf"{tower}_encoder at clip_weight 0\.5: expected .*what was published, to 0\.001 "
    with pytest.raises(ArtefactError, match=line):
        check(other, manifest=manifest, precision="float32", published=published)
    elsewhere = GoldenOutputs({0.25: published.outputs[0.5]})
    check(other, manifest=manifest, precision="float32", published=elsewhere)


def test_fewer_bits_may_be_as_far_away_as_when_they_were_published(
    made: tuple[Network, Manifest],
) -> None:
    """What was measured then is added to what machines differ by; CUDA may multiply in TF32."""
    network, manifest = made
    published = _published(network, manifest)

    def by(factor: float) -> Network:
        scale = np.float32(factor)
        return _with(network, video=lambda values: network.video(values) * scale)

    check(by(1.14), manifest=manifest, precision="int8", published=published)
    with pytest.raises(ArtefactError, match=r"to 0\.15 of the largest value"):
        check(by(1.16), manifest=manifest, precision="int8", published=published)
    cuda = Device("cuda")
    check(by(1.015), manifest=manifest, precision="float32", published=published, device=cuda)
    with pytest.raises(ArtefactError, match=r"to 0\.02 of the largest value"):
        check(by(1.025), manifest=manifest, precision="float32", published=published, device=cuda)


def test_bad_rows_are_named() -> None:
    """Of clips, one bad frame is enough."""
    vectors = np.ones((4, 3, 2), np.float32)
    vectors[1, 2] = 0
    vectors[3, 0, 0] = np.nan
    assert bad_rows(vectors).tolist() == [1, 3]
    assert bad_rows(np.ones((2, 5), np.float32)).size == 0
