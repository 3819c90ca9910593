"""λ = 1 of networks that have more weights than CLIP."""

import pytest
import torch
from torch.nn import functional as F

from tests.training.tiny import SYSTEMS, system, unlike
from training.interpolate import interpolate
from training.models.endpoints import clip_end
from training.models.network import VideoCLIP, build
from training.weights import WeightsError

CLIPS = torch.randn(2, 5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[514, 5, 6, 516], [514, 7, 516, 0]])


def ends(name: str) -> tuple[VideoCLIP, VideoCLIP]:
    """CLIP with the system's attention, and a tuned network of the system."""
    clip = build({**system("frames"), "temporal": SYSTEMS[name]["temporal"]}, seed=1)
    return clip, unlike(build(system(name), seed=2), seed=2)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_both_ends_can_be_mixed(name: str) -> None:
    """Names, shapes and types are those of the tuned weights, and CLIP's own are CLIP's."""
    clip, tuned = ends(name)
    end = clip_end(system(name), clip.state_dict(), tuned.state_dict())
    assert {n: t.shape for n, t in end.items()} == {
        n: t.shape for n, t in tuned.state_dict().items()
    }
    for key, tensor in clip.state_dict().items():
        assert torch.equal(end[key], tensor)
    middle = interpolate(end, tuned.state_dict(), clip_weight=0.5)
    tuned.load_state_dict(middle, strict=True)
    with torch.no_grad():
        assert torch.isfinite(tuned.encode_frames(CLIPS)).all()


@pytest.mark.parametrize("name", ["neighbour", "frames", "token-t1d", "t1d"])
def test_without_prompts_the_end_is_clip_bit_for_bit(name: str) -> None:
    """The identity over time changes nothing, not even the last bit."""
    clip, tuned = ends(name)
    tuned.load_state_dict(clip_end(system(name), clip.state_dict(), tuned.state_dict()))
    with torch.no_grad():
        assert torch.equal(tuned.encode_frames(CLIPS), clip.encode_frames(CLIPS))
        assert torch.equal(tuned.encode_text(IDS), clip.encode_text(IDS))


@pytest.mark.parametrize("name", ["t-trans", "t-trans, neighbour"])
def test_t_trans_ends_in_clips_directions(name: str) -> None:
    """Without its projections the head gives twice the frame vectors: the same directions."""
    clip, tuned = ends(name)
    tuned.load_state_dict(clip_end(system(name), clip.state_dict(), tuned.state_dict()))
    with torch.no_grad():
        found, expected = tuned.encode_frames(CLIPS), clip.encode_frames(CLIPS)
        assert torch.equal(found, 2 * expected)
        torch.testing.assert_close(
            F.normalize(found.mean(1), dim=-1), F.normalize(expected.mean(1), dim=-1)
        )
        assert torch.equal(tuned.encode_text(IDS), clip.encode_text(IDS))


def test_t_trans_fades_in_with_lambda() -> None:
    """What the head adds grows from nothing at λ = 1 to all of it at λ = 0."""
    clip, tuned = ends("t-trans")
    end = clip_end(system("t-trans"), clip.state_dict(), tuned.state_dict())
    head = tuned.visual.temporal_head
    frames = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(1))
    added = []
    for clip_weight in (1.0, 0.75, 0.5, 0.25, 0.0):
        tuned.load_state_dict(
            interpolate(end, ends("t-trans")[1].state_dict(), clip_weight=clip_weight)
        )
        with torch.no_grad():
            added.append(float((head(frames) - 2 * frames).norm()))
    assert added[0] == 0
    assert added == sorted(added)


@pytest.mark.parametrize("name", ["prompts", "everything"])
def test_prompts_are_the_tuned_ones_at_both_ends(name: str) -> None:
    """CLIP with these prompts: its own weights around them."""
    clip, tuned = ends(name)
    end = clip_end(system(name), clip.state_dict(), tuned.state_dict())
    prompts = [key for key in end if key.removeprefix("visual.").startswith("prompts.")]
    assert len(prompts) == 4
    for key in prompts:
        assert torch.equal(end[key], tuned.state_dict()[key])


def test_the_ends_are_copies() -> None:
    """Changing the end changes neither CLIP nor the tuned network."""
    clip, tuned = ends("everything")
    before = {n: t.clone() for n, t in (*clip.state_dict().items(), *tuned.state_dict().items())}
    for tensor in clip_end(system("everything"), clip.state_dict(), tuned.state_dict()).values():
        tensor.fill_(7.0)
    after = dict((*clip.state_dict().items(), *tuned.state_dict().items()))
    assert all(torch.equal(after[n], t) for n, t in before.items())


def test_an_end_that_is_whole_stays_as_it_is() -> None:
    """Weights that are there are taken, also those that CLIP itself would not have."""
    _, tuned = ends("everything")
    other = unlike(build(system("everything"), seed=3)).state_dict()
    end = clip_end(system("everything"), other, tuned.state_dict())
    assert all(torch.equal(end[n], t) for n, t in other.items())


def test_weights_that_do_not_fit_are_named() -> None:
    """Missing and unknown ones, at the end they are missing from."""
    clip, tuned = ends("t-trans")
    short = {n: t for n, t in clip.state_dict().items() if n != "visual.proj"}
    with pytest.raises(WeightsError, match=r"CLIP's weights: .*visual\.proj is missing"):
        clip_end(system("t-trans"), short, tuned.state_dict())
    with pytest.raises(WeightsError, match=r"tuned weights: .*temporal_head\S+ is missing"):
        clip_end(system("t-trans"), clip.state_dict(), clip.state_dict())
    more = {**clip.state_dict(), "visual.other": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"visual\.other is unknown"):
        clip_end(system("t-trans"), more, tuned.state_dict())
