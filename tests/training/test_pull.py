"""CLIP itself from a file: containers, activations, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.videoclip.tokenizing import Tokenizer
from training.__main__ import main
from training.models.network import build
from training.models.towers import open_clip
from training.pull import pull
from training.weights import WeightsError

NAME = "vtag-tiny-test"
CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8
    },
    # Wide enough for the real vocabulary, whose tokenizer is published with the weights.
    "text_cfg": {
        "context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A small architecture that open_clip knows by name, plain and with QuickGELU."""
    folder = tmp_path_factory.mktemp("configs")
    for name, more in ((NAME, {}), (f"{NAME}-quickgelu", {"quick_gelu": True})):
        (folder / f"{name}.json").write_text(json.dumps({**CONFIG, **more}))
    factory = open_clip().factory
    before = list(factory._MODEL_CONFIG_PATHS)
    open_clip().add_model_config(folder)
    yield
    factory._MODEL_CONFIG_PATHS[:] = before
    factory._rescan_model_configs()


def weights() -> dict[str, Tensor]:
    """Random, in the numbers that fp16 has, as OpenAI's are."""
    return {name: t.half().float() for name, t in build(CONFIG, seed=4).state_dict().items()}


def save(path: Path, state: dict[str, Tensor]) -> Path:
    """As OpenAI's archives hold it: fp16, and three numbers beside."""
    numbers = {"input_resolution": 16, "context_length": 8, "vocab_size": 49408}
    content = {name: tensor.half() for name, tensor in state.items()}
    torch.save({**content, **{n: torch.tensor(v) for n, v in numbers.items()}}, path)
    return path


def test_a_file_is_published_as_it_is(tmp_path: Path) -> None:
    """All weights in float32, frames by themselves, CLIP's own preprocessing and tokenizer."""
    pulled = pull(f"{NAME}-quickgelu", file=save(tmp_path / "ViT.pt", weights()))
    assert set(pulled.weights) == set(weights())
    for name, tensor in weights().items():
        assert torch.equal(pulled.weights[name], tensor), name
    description = pulled.description
    assert description.architecture["quick_gelu"] is True
    assert description.architecture["temporal"] == "none"
    assert description.preprocessing.image_size == 16
    assert description.provenance["weights"] == f"file ViT.pt for open_clip {NAME}-quickgelu"
    path = tmp_path / "tokenizer.json"
    path.write_text(description.tokenizer_json)
    ids, _ = Tokenizer(path, 77).encode(["a photo of a dog"])
    # OpenAI's ids of these words, as in every copy of its tokenizer.
    assert ids[0].tolist() == [49406, 320, 1125, 539, 320, 1929, 49407]


def test_an_activation_is_never_guessed(tmp_path: Path) -> None:
    """The file of a model that exists in both kinds needs a word."""
    path = save(tmp_path / "ViT.pt", weights())
    with pytest.raises(ValueError, match="add --quick-gelu or --no-quick-gelu"):
        pull(NAME, file=path)
    for given in (True, False):
        architecture = pull(NAME, file=path, quick_gelu=given).description.architecture
        assert architecture["quick_gelu"] is given
    with pytest.raises(ValueError, match="by its name a model with QuickGELU"):
        pull(f"{NAME}-quickgelu", file=path, quick_gelu=False)


def test_every_name_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    """Missing, unknown and misshapen, in one line."""
    state = weights()
    del state["visual.proj"]
    state["ln_final.bias"] = torch.zeros(3)
    state["extra"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        pull(NAME, file=save(tmp_path / "w.pt", state), quick_gelu=True)
    assert "visual.proj is missing; extra is unknown; ln_final.bias has shape (3,)" in str(
        caught.value
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    """FitCLIP's student, for one, has such a logit scale: it is for `import`, not for `pull`."""
    state = {**weights(), "logit_scale": torch.tensor(value)}
    with pytest.raises(WeightsError, match="not finite in logit_scale"):
        pull(NAME, file=save(tmp_path / "w.pt", state), quick_gelu=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template_set": "mine"}, "--templates mine: one of "),
        ({"name": "Upper"}, "--name Upper: 1 to 64"),
        ({"frames": 0}, "frames"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """Before anything is exported."""
    path = save(tmp_path / "w.pt", weights())
    with pytest.raises(ValueError, match=message):
        pull(NAME, file=path, quick_gelu=True, **options)


def test_a_number_that_the_manifest_does_not_take_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The field and its limit, without the words of the library that checks it."""
    path = save(tmp_path / "w.pt", weights())
    arguments = ["pull", NAME, "--file", str(path), "--quick-gelu", "--frames", "5000"]
    assert main([*arguments, "--store", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert error == "error: frames: Input should be less than or equal to 4096\n"
