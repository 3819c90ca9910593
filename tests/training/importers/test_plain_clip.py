"""Plain weights: every container, wrong CLIPs, and the options that all formats share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from service.videoclip.manifest import load_manifest
from tests.training.importers import authors
from tests.training.importers.authors import State, clip_weights, fine_tuned, read, unit
from tests.training.tiny import ARCHITECTURE
from training.__main__ import main
from training.conversion import distance_from_clip
from training.errors import Refusal
from training.evaluate.artefact import PublishedModel
from training.foreign_model import ImportRefused, require_quick_gelu
from training.models.network import build
from training.weights import WeightsError


def save(folder: Path, state: State, *, form: str) -> Path:
    """The same weights in one of the containers that they come in."""
    path = folder / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "open_clip":
        named = {f"module.{name}": tensor for name, tensor in state.items()}
        content = {"epoch": 3, "name": "run", "state_dict": named, "optimizer": {"state": {}}}
        torch.save(content, path)
    elif form == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def artefact(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of open_clip's training, imported and published by the command line."""
    path = save(tmp_path_factory.mktemp("plain"), fine_tuned(), form="open_clip")
    return authors.published(
        "plain_clip", path, tiny_artefact,
        "--frames", "3", "--name", "mine", "--templates", "vifi-clip", "--licence", "CC0-1.0",
    )  # fmt: skip


@pytest.mark.parametrize("clip_weight", [0.0, 0.3])
def test_the_graphs_are_open_clips_network(artefact: Path, clip_weight: float) -> None:
    """Video vectors and classifiers of open_clip with the same weights at λ."""
    frames = authors.pictures(3)
    clip = authors.plain(authors.at(clip_weight, fine_tuned()))
    with torch.no_grad():
        video = unit(clip.encode_image(authors.pixels(frames))).mean(0)
        texts = authors.classifier(clip, artefact, ["a photo of a {}."])
    model = PublishedModel(artefact, clip_weight=clip_weight)
    np.testing.assert_allclose(model.embed(frames[None, None])[0], video.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.classifier(authors.LABELS), texts.numpy(), atol=1e-5)


def test_options_are_in_the_manifest(artefact: Path) -> None:
    """Name, frames, templates and licence as told; file, sum and distance as found."""
    manifest = load_manifest(artefact)
    assert manifest.name == "mine"
    assert manifest.sampling.frames == 3
    assert manifest.template_set == "vifi-clip"
    assert manifest.licence == "CC0-1.0"
    assert manifest.default_clip_weight == 0.0
    provenance: Any = manifest.provenance
    assert provenance["imported_from"]["file"] == "weights.pt"
    assert len(provenance["imported_from"]["sha256"]) == 64
    assert provenance["imported_from"]["not_looked_at"] == ["epoch", "name", "optimizer"]
    assert provenance["clip"]["name"] == "tiny"
    expected = distance_from_clip(clip_weights(), fine_tuned())
    assert provenance["distance_from_clip"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", ["safetensors", "bare", "open_clip", "legacy"])
def test_every_container_gives_the_same_weights(
    tiny_artefact: Path, tmp_path: Path, form: str
) -> None:
    """Whatever lies around the state dict, and whichever format `torch.save` had."""
    imported = read("plain_clip", save(tmp_path, fine_tuned(), form=form), tiny_artefact)
    for name, tensor in fine_tuned().items():
        assert torch.equal(imported.tuned[name], tensor), name
    for name, tensor in clip_weights().items():
        assert torch.equal(imported.clip[name], tensor), name


def test_neighbours_can_be_asked_for(tiny_artefact: Path, tmp_path: Path) -> None:
    """Only the user knows how plain weights were tuned."""
    path = save(tmp_path, fine_tuned(), form="bare")
    imported = read("plain_clip", path, tiny_artefact, temporal="neighbour")
    assert imported.description.architecture["temporal"] == "neighbour"
    assert read("plain_clip", path, tiny_artefact).description.architecture["temporal"] == "none"


def test_weights_of_another_clip_are_refused(tiny_artefact: Path, tmp_path: Path) -> None:
    """Same names and shapes, no kinship: between these two there is no λ."""
    other = {n: t.clone() for n, t in build(ARCHITECTURE, seed=9).state_dict().items()}
    with pytest.raises(WeightsError, match="was not fine-tuned from the CLIP of --clip"):
        read("plain_clip", save(tmp_path, other, form="bare"), tiny_artefact)


def test_another_resolution_is_refused_with_sizes(tiny_artefact: Path, tmp_path: Path) -> None:
    """Positions of 3 x 3 patches of 20 pixels: this is a model for 60 pixels, not for 40."""
    state = fine_tuned()
    state["visual.positional_embedding"] = torch.zeros(10, 32)
    with pytest.raises(WeightsError, match=r"10 positions, for pictures of 60 pixels.*5, for 40"):
        read("plain_clip", save(tmp_path, state, form="bare"), tiny_artefact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_weight": 1.5}, "--clip-weight 1.5: not within 0 and 1"),
        ({"clip_weight": float("nan")}, "--clip-weight nan: not within 0 and 1"),
        ({"template_set": "mine"}, "--templates mine: one of .*kinetics"),
        ({"name": "../up"}, r"--name \.\./up: 1 to 64 lower-case letters"),
        ({"frames": 0}, "--frames 0: .*greater than or equal to 1"),
        ({"views": 3}, "--views 3: .*mode 'uniform' has one view"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tiny_artefact: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """One line with the option, its value and the limit."""
    path = save(tmp_path, fine_tuned(), form="bare")
    with pytest.raises(Refusal, match=message) as caught:
        read("plain_clip", path, tiny_artefact, **options)
    assert "\n" not in str(caught.value)


def test_a_format_that_leaves_no_choice_takes_no_temporal_option(
    tiny_artefact: Path, tmp_path: Path
) -> None:
    """The published formats say themselves how frames see each other."""
    with pytest.raises(ImportRefused, match="--temporal: fitclip leaves no choice"):
        read("fitclip", tmp_path / "none.pt", tiny_artefact, temporal="neighbour")


def test_a_clip_with_gelu_is_refused_where_quickgelu_was_tuned(tiny_artefact: Path) -> None:
    """The names would fit, and the accuracy would be lost without a word."""
    start = authors.original(tiny_artefact)
    require_quick_gelu(start, whose="FitCLIP")
    architecture = {**start.manifest.architecture, "quick_gelu": False}
    gelu = type(start)(
        **{
            **vars(start),
            "manifest": start.manifest.model_copy(update={"architecture": architecture}),
        }
    )
    with pytest.raises(ImportRefused, match="tiny uses GELU, but FitCLIP fine-tuned OpenAI's"):
        require_quick_gelu(gelu, whose="FitCLIP")


def test_the_command_line_says_what_is_wrong(
    tiny_artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong file and a wrong artefact are one line and exit code 2; the store stays empty."""
    store = tmp_path / "model_store"
    clip = authors.clip_folder(tiny_artefact)
    for file, folder, message in (
        (tmp_path / "none.pt", clip, "none.pt: no such file"),
        (tmp_path / "none.pt", tmp_path, "manifest.json"),
    ):
        arguments = ["import", "plain_clip", file, "--clip", folder, "--store", store]
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
    assert not store.exists()
