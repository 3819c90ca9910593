"""FitCLIP's checkpoints: the student's file, Lightning's, and logit scales that are no numbers."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.videoclip.manifest import load_manifest
from tests.training.importers import authors
from tests.training.importers.authors import State, clip_weights, fine_tuned, read, unit
from training.evaluate.artefact import PublishedModel
from training.weights import WeightsError

STUDENT_SHARE = 0.4
FORMS = ("{}", "using {}", "doing {}", "during {}", "performing {}", "practicing {}")
TEMPLATES = [
    f"a {medium} of {article} person {form}."
    for medium in ("photo", "video", "example", "demonstration")
    for article in ("a", "the")
    for form in FORMS
]


def student() -> State:
    """All of CLIP is trained, but its logit scale, which is deleted."""
    weights = fine_tuned()
    del weights["logit_scale"]
    return weights


def lightning_state() -> State:
    """Names of the authors' module: student, teacher, and temperatures of shape (1,)."""
    teacher = {n: t for n, t in clip_weights().items() if n != "logit_scale"}
    return {
        **{f"encoder.model.{name}": tensor for name, tensor in student().items()},
        **{f"teacher.model.{name}": tensor for name, tensor in teacher.items()},
        "logit_scale": torch.tensor([2.99]),
        "max_logit_scale": torch.tensor([6.9]),
        "teacher_student_logit_scale": torch.tensor([4.2]),
    }


def save_lightning(path: Path, **beside: Any) -> Path:
    """What Lightning writes."""
    content = {
        "state_dict": lightning_state(),
        "epoch": 0,
        "global_step": 30,
        "pytorch-lightning_version": "1.5.10",
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.5)}},
        "hyper_parameters": {"fit_temperature": False},
        **beside,
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def artefact(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lightning's file, imported and published by the command line."""
    path = save_lightning(tmp_path_factory.mktemp("fitclip") / "best_labeled.ckpt")
    return authors.published("fitclip", path, tiny_artefact)


def ensemble(student_share: float) -> Any:
    """θ = (1 - α) CLIP + α student, in the authors' direction; the scale is CLIP's."""
    clip = clip_weights()
    mixed = {n: (1 - student_share) * clip[n] + student_share * t for n, t in student().items()}
    return authors.plain({**mixed, "logit_scale": clip["logit_scale"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip_weight", "student_share"), [(None, STUDENT_SHARE), (0.0, 1.0), (1.0, 0.0)]
)
def test_the_graphs_are_the_authors_ensemble(
    artefact: Path, clip_weight: float | None, student_share: float
) -> None:
    """λ is the other share: by default 0.6 of CLIP, 0.4 of the student; both ends are pure."""
    model = PublishedModel(artefact, clip_weight=clip_weight)
    frames = authors.pictures(4)
    clip = ensemble(student_share)
    with torch.no_grad():
        video = unit(clip.encode_image(authors.pixels(frames))).mean(0)
        texts = authors.classifier(clip, artefact, TEMPLATES)
    np.testing.assert_allclose(model.embed(frames[None, None])[0], video.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.classifier(authors.LABELS), texts.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_manifest_says_how_the_authors_used_it(artefact: Path) -> None:
    """4 frames, 48 templates, λ 0.6, CLIP's logit scale, bicubic on tensors."""
    manifest = load_manifest(artefact)
    assert (manifest.sampling.mode, manifest.sampling.frames) == ("uniform", 4)
    assert manifest.template_set == "ucf101"
    assert manifest.default_clip_weight == 0.6
    assert manifest.preprocessing.interpolation == "bicubic_without_antialias"
    assert manifest.preprocessing.resize_size is None
    assert manifest.pooling == "normalize_then_mean"
    assert manifest.logit_scale == pytest.approx(float(clip_weights()["logit_scale"].exp()))
    assert manifest.architecture["temporal"] == "none"
    assert manifest.text_tower_tuned


def test_teacher_and_temperatures_are_left_out_by_name(tiny_artefact: Path, tmp_path: Path) -> None:
    """The account names the teacher's weights, three temperatures, and the rest of the file."""
    account = read("fitclip", save_lightning(tmp_path / "a.ckpt"), tiny_artefact).account
    names = [name for group in account.left_out.values() for name in group]
    assert sum(name.startswith("teacher.model.") for name in names) == len(clip_weights()) - 1
    assert {"logit_scale", "max_logit_scale", "teacher_student_logit_scale"} < set(names)
    assert {"optimizer_states", "callbacks", "hyper_parameters"} < set(account.beside)


@pytest.mark.parametrize("scale", [None, float("nan"), 2.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_released_student_never_gives_its_logit_scale(
    tiny_artefact: Path, tmp_path: Path, scale: float | None, dtype: torch.dtype
) -> None:
    """Missing, not a number, or a temperature: the artefact has CLIP's at both ends."""
    state = {name: tensor.to(dtype) for name, tensor in student().items()}
    if scale is not None:
        state["logit_scale"] = torch.tensor(scale, dtype=dtype)
    path = tmp_path / "distill_clip_only_student.pt"
    torch.save(state, path)
    imported = read("fitclip", path, tiny_artefact)
    for end in (imported.tuned, imported.clip):
        assert torch.equal(end["logit_scale"], clip_weights()["logit_scale"])
    for name, tensor in student().items():
        assert torch.equal(imported.tuned[name], tensor.to(dtype).float()), name


def test_hyper_parameters_that_are_objects_are_refused(
    tiny_artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra's settings inside a checkpoint: one line that names what to take out."""

    class DictConfig:
        """As omegaconf has it."""

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module: Any = types.ModuleType("omegaconf.dictconfig")
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    path = save_lightning(tmp_path / "a.ckpt", hyper_parameters=DictConfig())
    with pytest.raises(WeightsError, match=r"omegaconf\.dictconfig\.DictConfig.*'state_dict'"):
        read("fitclip", path, tiny_artefact)
