"""Publishing: whole or not at all."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.videoclip.manifest import ArtefactError, load_manifest, verify_files
from tests.training.test_export import swap_weights
from tests.training.tiny import (
    FRAMES,
    VOCABULARY_SIZE,
    build_tiny_store,
    real_clips,
    tiny_description,
    tiny_weights,
)
from training import artefact
from training.models.network import VideoCLIP
from training.parity import GRAPHS, ParityError
from training.publish import PublishError, publish, set_active

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def revisions(store: Path) -> list[str]:
    """What a reader of the store sees."""
    return [f"{p.parent.name}/{p.name}" for p in store.glob("*/*") if not p.name.startswith(".")]


def test_an_artefact_is_complete_and_active(tiny_artefact: Path) -> None:
    """Every file is there and verifies, the manifest tells what was measured, it is served."""
    (revision,) = revisions(tiny_artefact)
    folder = tiny_artefact / revision
    manifest = load_manifest(folder)
    verify_files(folder, manifest)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*manifest.files, "manifest.json"]
    )
    assert len(manifest.files) == 9
    assert manifest.name == "tiny"
    assert manifest.frames_per_clip == FRAMES
    assert not manifest.text_tower_tuned
    compared = [(p.graph, p.inputs, p.clip_weight, p.batch) for p in manifest.parity]
    assert sorted(compared) == sorted(
        (graph, inputs, clip_weight, batch)
        for graph in GRAPHS
        for inputs in ("random", "real")
        for clip_weight, batch in ((0.0, 1), (0.0, 2), (0.0, 5), (0.5, 2), (1.0, 2))
    )
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())
    active = json.loads((tiny_artefact / "active.json").read_text())
    assert active["active"] == {"name": "tiny", "revision": folder.name}
    card = (folder / "MODEL_CARD.md").read_text()
    assert folder.name in card
    assert "It knows nothing." in card


def test_the_logit_scale_is_that_of_the_default_lambda(tiny_artefact: Path) -> None:
    """Interpolated as it is stored, and exponentiated."""
    (revision,) = revisions(tiny_artefact)
    clip, tuned = tiny_weights()
    expected = (0.4 * clip["logit_scale"] + 0.6 * tuned["logit_scale"]).exp()
    assert load_manifest(tiny_artefact / revision).logit_scale == pytest.approx(float(expected))


@pytest.mark.usefixtures("quick_export")
def test_a_sabotaged_export_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the tolerance nothing appears in the store, and nothing becomes active."""

    copy: Callable[..., None] = vars(artefact)["export"]

    def sabotaged(network: VideoCLIP, folder: Path, *, frames_per_clip: int) -> None:
        copy(network, folder, frames_per_clip=frames_per_clip)
        swap_weights(folder / "video_encoder.onnx")

    monkeypatch.setattr(artefact, "export", sabotaged)
    with pytest.raises(ParityError, match=r"video_encoder\.onnx"):
        build_tiny_store(tmp_path)
    assert revisions(tmp_path) == []
    assert not (tmp_path / "active.json").exists()
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.usefixtures("quick_export")
def test_the_same_weights_are_refused_or_replaced(tmp_path: Path) -> None:
    """A second publication of the same bytes needs to be asked for, and then takes over."""
    build_tiny_store(tmp_path)
    before = revisions(tmp_path)
    clip, tuned = tiny_weights()
    described = replace(tiny_description(), card="Another card.")
    with pytest.raises(PublishError, match="published already"):
        publish(described, clip=clip, tuned=tuned, store=tmp_path)
    assert revisions(tmp_path) == before
    folder = publish(described, clip=clip, tuned=tuned, store=tmp_path, replace=True)
    assert revisions(tmp_path) == before
    verify_files(folder, load_manifest(folder))
    assert "Another card." in (folder / "MODEL_CARD.md").read_text()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


@pytest.mark.usefixtures("quick_export")
def test_active_remembers_the_one_before(tmp_path: Path) -> None:
    """Rolling back is naming the previous artefact; naming the same again changes nothing."""
    build_tiny_store(tmp_path)
    clip, tuned = tiny_weights()
    tuned["visual.proj"] = tuned["visual.proj"] * 2
    second = publish(tiny_description(), clip=clip, tuned=tuned, store=tmp_path)
    (first,) = {p.split("/")[1] for p in revisions(tmp_path)} - {second.name}
    expected = {
        "active": {"name": "tiny", "revision": second.name},
        "previous": {"name": "tiny", "revision": first},
    }
    assert json.loads((tmp_path / "active.json").read_text()) == expected
    set_active(tmp_path, name="tiny", revision=second.name)
    assert json.loads((tmp_path / "active.json").read_text()) == expected
    with pytest.raises(ArtefactError):
        set_active(tmp_path, name="tiny", revision="0" * 12)
    assert json.loads((tmp_path / "active.json").read_text()) == expected


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_nothing_visible(tmp_path: Path) -> None:
    """After kill -9 between two graphs nothing of the artefact can be seen."""
    code = (
        "from pathlib import Path; from tests.training.tiny import build_tiny_store; "
        f"build_tiny_store(Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    deadline = time.monotonic() + 100
    try:
        while not list(tmp_path.glob("tiny/.publishing-*/video_encoder.onnx")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert revisions(tmp_path) == []
    assert not (tmp_path / "active.json").exists()


@pytest.mark.usefixtures("quick_export")
def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    """Missing, misshapen and broken weights are named, and nothing is written."""
    clip, tuned = tiny_weights()
    short = {n: t for n, t in tuned.items() if n != "visual.proj"}
    with pytest.raises(ValueError, match=r"tuned: .*visual\.proj"):
        publish(tiny_description(), clip=clip, tuned=short, store=tmp_path)
    wide = {**tuned, "visual.proj": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=r"visual\.proj \(3, 3\) instead of"):
        publish(tiny_description(), clip=clip, tuned=wide, store=tmp_path)
    broken = {**tuned, "visual.proj": torch.full_like(tuned["visual.proj"], torch.nan)}
    with pytest.raises(ValueError, match=r"not finite in visual\.proj"):
        publish(tiny_description(), clip=clip, tuned=broken, store=tmp_path)
    assert revisions(tmp_path) == []


@pytest.mark.usefixtures("quick_export")
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Another image size, or a tokenizer with more ids than the network, is an error."""
    clip, tuned = tiny_weights()
    described = tiny_description()
    other = replace(
        described, preprocessing=described.preprocessing.model_copy(update={"image_size": 48})
    )
    with pytest.raises(ValueError, match="image_size: 48"):
        publish(other, clip=clip, tuned=tuned, store=tmp_path, real_clips=real_clips())
    architecture = {**described.architecture}
    architecture["text_cfg"] = {**architecture["text_cfg"], "vocab_size": VOCABULARY_SIZE - 1}
    small = {n: t[:-1] if n == "token_embedding.weight" else t for n, t in clip.items()}
    with pytest.raises(ValueError, match=f"tokenizer: {VOCABULARY_SIZE} ids"):
        publish(
            replace(described, architecture=architecture), clip=small, tuned=small, store=tmp_path
        )
