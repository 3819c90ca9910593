"""From a file of weights to an evaluated artefact, by the commands that a user types."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.videoclip.manifest import load_manifest
from service.videoclip.tokenizing import Tokenizer
from training.__main__ import main
from training.data.motion_world.files import write_video
from training.models.network import build
from training.models.towers import open_clip
from training.pull import PullError, pull
from training.weights import WeightsError

MODEL = "vtag-tiny-test"
PLAIN = "vtag-tiny-plain"  # with a twin of the other activation, as ViT-B-32 has
CONFIG = """
run = "{folder}/run"
clip = "{clip}"
frames = 4
template_set = "none"
seed = 3

[data]
train = "{folder}/train.csv"

[data.evaluation]
seen = "{folder}/train.csv"
folders = "{folder}/folders"

[optimisation]
steps = 60
batch_size = 4
peak_learning_rate = 2e-3

[regularisation]
interpolation_coefficient = 0.5
interpolation_max = 0.5
snapshots = 4
snapshot_start_share = 0.8

[open_vclip]

[select]
maximise = ["seen"]
at_least = {{ folders = 0 }}

[publish]
name = "tuned"
licence = "Apache-2.0"
store = "{folder}/store"
background_labels = ["nothing"]
card = "Bright or dark."
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny architecture that open_clip knows by name, with its own vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    for name, quick in ((MODEL, True), (PLAIN, False), (f"{PLAIN}-quickgelu", True)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**config, "quick_gelu": quick}))
        open_clip().add_model_config(path)
    return MODEL


def draw(path: Path, *, bright: bool, seed: int) -> None:
    """Half a second of a bright or a dark square, encoded."""
    noise = np.random.default_rng(seed).integers(0, 40, (8, 64, 64, 3))
    frames: NDArray[np.uint8] = (noise + (200 if bright else 10)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, seconds=0.5)


def prepare(folder: Path) -> None:
    """Twelve labelled videos in a list, with one that cannot be decoded, and four in folders."""
    rows = [("path", "label", "note")]
    for i in range(12):
        draw(folder / f"videos/{i}.mp4", bright=i % 2 == 0, seed=i)
        rows.append((f"videos/{i}.mp4", "bright" if i % 2 == 0 else "dark", "x"))
    (folder / "videos/broken.mp4").write_bytes(b"no video at all")
    rows.append(("videos/broken.mp4", "dark", "x"))
    with (folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    for i in range(4):
        label = "bright" if i % 2 == 0 else "dark"
        draw(folder / f"folders/{label}/{i}.mp4", bright=i % 2 == 0, seed=100 + i)


@pytest.mark.slow
def test_the_whole_way(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pull, train, select, publish and evaluate follow each other without a hand between them."""
    prepare(tmp_path)
    torch.save(build(model, seed=4).state_dict(), tmp_path / "clip.pt")
    store = tmp_path / "store"
    pulling = ["pull", model, "--file", str(tmp_path / "clip.pt"), "--store", str(store)]
    assert main([*pulling, "--frames", "4", "--video", str(tmp_path / "videos/0.mp4")]) == 0
    (clip,) = (store / model).iterdir()
    pulled = load_manifest(clip)
    assert pulled.recipe == "clip"
    assert pulled.files["weights_clip.safetensors"].sha256 == (
        pulled.files["weights_tuned.safetensors"].sha256
    )
    assert {p.inputs for p in pulled.parity} == {"random", "real"}

    config = tmp_path / "run.toml"
    config.write_text(CONFIG.format(folder=tmp_path, clip=clip))
    assert main(["train", str(config)]) == 0
    assert "left out" in capsys.readouterr().out
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["videos"] == 13
    assert len(facts["failed"]) == 1
    assert len((tmp_path / "run/steps.jsonl").read_text().splitlines()) == 60
    assert main(["train", str(config)]) == 2  # a run is never overwritten
    assert "exists already" in capsys.readouterr().err

    assert main(["publish", str(config)]) == 2  # nothing was measured yet
    assert "training select" in capsys.readouterr().err
    assert main(["select", str(config), "--steps", "2"]) == 0
    table = capsys.readouterr().out
    assert "largest mean over seen" in table
    assert main(["publish", str(config)]) == 0
    (folder,) = (store / "tuned").iterdir()
    manifest = load_manifest(folder)
    assert [p.clip_weight for p in manifest.curve] == [0.0, 0.5, 1.0]
    assert manifest.curve[0].scores["seen"] == 100.0
    assert manifest.architecture["temporal"] == "neighbour"
    assert manifest.provenance["classes"] == ["bright", "dark"]
    active = json.loads((store / "active.json").read_text())
    assert active["active"]["name"] == "tuned"
    assert active["previous"]["name"] == model

    capsys.readouterr()
    for runtime in ("onnx", "torchscript"):
        arguments = ["evaluate", str(folder), str(tmp_path / "folders"), "--clip-weight", "0"]
        assert main([*arguments, "--runtime", runtime]) == 0
        assert "| 0 | all | 4 | 100.0 | 100.0 | 100.0 |" in capsys.readouterr().out


def test_pulled_tokenizer_is_open_clips(model: str, tmp_path: Path) -> None:
    """The tokenizer.json written from open_clip's vocabulary gives open_clip's ids."""
    torch.save(build(model).state_dict(), tmp_path / "clip.pt")
    pulled = pull(model, file=tmp_path / "clip.pt")
    path = tmp_path / "tokenizer.json"
    path.write_text(pulled.description.tokenizer_json, encoding="utf-8")
    texts = ["a photo of a dog.", "Café – naïve 漢字 🏀 it's 1,024"]
    ids, _ = Tokenizer(path, 77).encode(texts)
    expected = open_clip().tokenize(texts).numpy()
    np.testing.assert_array_equal(ids, expected[:, : ids.shape[1]])
    assert not expected[:, ids.shape[1] :].any()


def test_the_activation_is_that_of_the_weights(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's weights under open_clip's plain name keep QuickGELU, which the name does not say."""
    weights = build(model).state_dict()
    for needed in (True, False):
        monkeypatch.setattr(
            "training.pull._from_hub", lambda *_, needed=needed: (weights, {"quick_gelu": needed})
        )
        assert pull(model).description.architecture["quick_gelu"] is needed


def test_the_activation_of_a_file_is_not_guessed(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that exists for both needs to be told which; a name that says it needs nothing."""
    file = tmp_path / "clip.pt"
    torch.save(build(model).state_dict(), file)
    with pytest.raises(ValueError, match="--quick-gelu or --no-quick-gelu"):
        pull(PLAIN, file=file)
    for given in (True, False):
        pulled = pull(PLAIN, file=file, quick_gelu=given)
        assert pulled.description.architecture["quick_gelu"] is given
    for named in (f"{PLAIN}-quickgelu", model):
        assert pull(named, file=file).description.architecture["quick_gelu"] is True
    with pytest.raises(ValueError, match="by its name"):
        pull(f"{PLAIN}-quickgelu", file=file, quick_gelu=False)
    with pytest.raises(ValueError, match="is for --file"):
        pull(PLAIN, quick_gelu=True)
    assert main(["pull", PLAIN, "--file", str(file), "--store", str(tmp_path / "store")]) == 2
    assert "--quick-gelu" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pull", "--help"])
    assert "trained with QuickGELU" in " ".join(capsys.readouterr().out.split())


def test_weights_of_another_model_are_listed(model: str, tmp_path: Path) -> None:
    """A file that does not fit the named architecture is refused with its differences."""
    state = build(model).state_dict()
    del state["visual.proj"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=r"visual\.proj is missing"):
        pull(model, file=tmp_path / "clip.pt")


def test_unknown_models_and_tags_are_named() -> None:
    """With the tags that exist."""
    with pytest.raises(ValueError, match="no-such-model"):
        pull("no-such-model")
    with pytest.raises(ValueError, match="known: openai"):
        pull("ViT-B-32-quickgelu", pretrained="no-such-tag")


def test_a_hub_that_cannot_be_reached_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, without a minute of retries: the host has no address."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PullError, match=r"hub\.invalid"):
        pull("ViT-B-32-quickgelu")
    assert main(["pull", "ViT-B-32-quickgelu", "--store", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--file" in error
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,name\na.mp4,x\n", "a.mp4 has no label"),
        ("path,label\na.mp4,\n", "line 2: label is empty"),
        ("path,label\n", "holds no videos"),
        ("path,label\nnone.mp4,x\n", "none of 1 videos can be decoded"),
        (None, "No such file"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(
    tmp_path: Path,
    tiny_artefact: Path,
    content: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Missing columns, fields, videos, or the file itself."""
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_text(content)
    (folder,) = tiny_artefact.glob("tiny/*")
    assert main(["evaluate", str(folder), str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "error: " in error
