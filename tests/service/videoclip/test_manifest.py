"""The manifest: what is accepted, and how it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.videoclip.manifest import (
    MAX_MANIFEST_BYTES,
    REQUIRED_FILES,
    ArtefactError,
    Manifest,
    Preprocessing,
    Sampling,
    describe_file,
    load_manifest,
    revision_of,
    verify_files,
)

Change = Callable[[dict[str, Any]], None]

SAMPLING = Sampling(mode="uniform", frames=8)
PREPROCESSING = Preprocessing(image_size=40, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def write_artefact(folder: Path) -> dict[str, Any]:
    """A complete artefact of meaningless bytes; returns the document of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(REQUIRED_FILES):
        (folder / name).write_bytes(f"bytes of {name}".encode())
    files = {name: describe_file(folder / name) for name in sorted(REQUIRED_FILES)}
    document: dict[str, Any] = {
        "schema_version": 1,
        "name": "demo",
        "revision": revision_of(
            files, sampling=SAMPLING, preprocessing=PREPROCESSING, pooling="normalize_then_mean"
        ),
        "created_at": "2026-11-21T00:00:00Z",
        "recipe": "open_vclip",
        "architecture": {"embed_dim": 64, "vision_cfg": {"layers": 4}},
        "embedding_size": 64,
        "frames_per_clip": 8,
        "sampling": {"mode": "uniform", "frames": 8},
        "preprocessing": {"image_size": 40, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "pooling": "normalize_then_mean",
        "template_set": "motion-world",
        "logit_scale": 100.0,
        "context_length": 32,
        "text_tower_tuned": False,
        "default_clip_weight": 0.4,
        "clip_weight_rule": "best mean of the targets",
        "curve": [{"clip_weight": 0.0, "scores": {"source": 85.0}, "spread": {"source": 1.0}}],
        "background_labels": ["an empty picture"],
        "files": {name: entry.model_dump() for name, entry in files.items()},
        "licence": "Apache-2.0",
        "provenance": {"seed": 0},
        "parity": [
            {
                "graph": "video_encoder.onnx",
                "clip_weight": 0.5,
                "batch": 2,
                "inputs": "real",
                "max_abs_error": 1e-6,
                "max_rel_error": 1e-6,
            }
        ],
    }
    write(folder, document)
    return document


def write(folder: Path, document: object) -> None:
    """Write the manifest."""
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


def test_a_complete_artefact_is_loaded_and_verified(tmp_path: Path) -> None:
    """What was written is read, and can be written and read again."""
    write_artefact(tmp_path)
    manifest = load_manifest(tmp_path)
    verify_files(tmp_path, manifest)
    assert manifest.sampling == Sampling(frames=8)
    assert manifest.preprocessing.std == (0.2, 0.2, 0.2)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    assert load_manifest(tmp_path) == manifest


def test_a_manifest_cannot_be_changed(tmp_path: Path) -> None:
    """It is a value."""
    write_artefact(tmp_path)
    with pytest.raises(ValidationError):
        load_manifest(tmp_path).name = "other"


def _set(*path: str, to: object) -> Change:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return change


def _drop(*path: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


ENTRY = {"sha256": "0" * 64, "size_bytes": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_set("surprise", to=1), "a valid surprise"),
        (_drop("name"), "a valid name"),
        (_set("name", to="Demo"), "a valid name"),
        (_set("name", to="../demo"), "a valid name"),
        (_set("name", to="a" * 65), "a valid name"),
        (_set("name", to="demo\n"), "a valid name"),
        (_set("revision", to="xyz"), "a valid revision"),
        (_set("schema_version", to=2), "expected schema_version 1, found 2"),
        (_set("schema_version", to=True), "expected schema_version 1, found True"),
        (_drop("schema_version"), "expected schema_version 1, found None"),
        (_set("embedding_size", to=0), "a valid embedding_size"),
        (_set("logit_scale", to=-1), "a valid logit_scale"),
        (_set("default_clip_weight", to=1.5), "a valid default_clip_weight"),
        (_set("tokenizer", to="vocab.bpe"), "a valid tokenizer"),
        (_set("pooling", to="max"), "a valid pooling"),
        (_set("files", "../../etc/passwd", to=ENTRY), "'../../etc/passwd' is not a file"),
        (_set("files", "/etc/passwd", to=ENTRY), "'/etc/passwd' is not a file"),
        (_set("files", "a\\b", to=ENTRY), "is not a file of an artefact"),
        (_set("files", "model.pkl", to=ENTRY), "'model.pkl' is not a file"),
        (_set("files", "manifest.json", to=ENTRY), "'manifest.json' is not a file"),
        (_drop("files", "tokenizer.json"), "tokenizer.json is missing"),
        (_set("files", "tokenizer.json", "sha256", to="F" * 64), "files.tokenizer.json.sha256"),
        (_set("files", "tokenizer.json", "size_bytes", to=-1), "files.tokenizer.json.size_bytes"),
        (_set("sampling", "frames", to=0), "a valid sampling.frames"),
        (_set("sampling", "frames", to=16), "16 frames, frames_per_clip 8"),
        (_set("sampling", "mode", to="strided"), "stride_seconds: needed by mode 'strided'"),
        (_set("preprocessing", "std", to=[0.2, 0.2, 0]), "std: "),
        (_set("preprocessing", "crop", to="random"), "a valid preprocessing.crop"),
        (_set("curve", to=[{"clip_weight": 2}]), "a valid curve.0"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(tmp_path: Path, change: Change, match: str) -> None:
    """One line with the file, the field and the value; never a path of the machine."""
    document = write_artefact(tmp_path)
    change(document)
    write(tmp_path, document)
    with pytest.raises(ArtefactError) as caught:
        load_manifest(tmp_path)
    message = str(caught.value)
    assert match in message
    assert message.startswith("manifest.json: expected ")
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert len(message) < 800


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"schema_version": 1, "logit_scale": NaN}',
        b'{"schema_version": 1, "logit_scale": Infinity}',
        b" " * (MAX_MANIFEST_BYTES + 1),
    ],
    ids=["empty", "cut", "list", "null", "bytes", "deep", "nan", "infinity", "huge"],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    """Bad JSON, deep JSON, NaN and huge files are one-line errors, not crashes."""
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"^manifest\.json: expected") as caught:
        load_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_number_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    """1e400 is infinity to JSON's parser."""
    document = write_artefact(tmp_path)
    text = json.dumps(document).replace('"logit_scale": 100.0', '"logit_scale": 1e400')
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtefactError, match="logit_scale"):
        load_manifest(tmp_path)


def test_a_missing_manifest_says_so(tmp_path: Path) -> None:
    """No file, and a folder instead of a file."""
    with pytest.raises(ArtefactError, match="expected a readable file, found No such file"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ArtefactError, match="expected a readable file, found Is a directory"):
        load_manifest(tmp_path)


def test_altered_files_are_found(tmp_path: Path) -> None:
    """Missing, of another size, of the same size but other bytes, or a link."""
    write_artefact(tmp_path)
    manifest = load_manifest(tmp_path)
    file = tmp_path / "weights_tuned.safetensors"
    good = file.read_bytes()

    file.write_bytes(good + b"x")
    with pytest.raises(ArtefactError, match=rf"{file.name}: expected {len(good)} bytes, found"):
        verify_files(tmp_path, manifest)
    file.write_bytes(b"B" + good[1:])
    with pytest.raises(ArtefactError, match=rf"{file.name}: expected sha256 [0-9a-f]{{64}}, found"):
        verify_files(tmp_path, manifest)
    file.unlink()
    with pytest.raises(ArtefactError, match=rf"{file.name}: expected a regular file, found none"):
        verify_files(tmp_path, manifest)
    outside = tmp_path / "elsewhere"
    outside.write_bytes(good)
    file.symlink_to(outside)
    with pytest.raises(ArtefactError, match=rf"{file.name}: expected a regular file, found a link"):
        verify_files(tmp_path, manifest)


def test_an_artefact_error_survives_pickling() -> None:
    """It may come out of the encoder process."""
    import pickle

    error = ArtefactError("a.onnx", expected="5 bytes", found="6")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.file, copy.expected, copy.found) == ("a.onnx", "5 bytes", "6")
    assert str(copy) == "a.onnx: expected 5 bytes, found 6"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"frames": 8, "times_seconds": (1.0,)}, "times_seconds: needed by mode 'explicit'"),
        ({"mode": "explicit", "frames": 1}, "times_seconds: needed by mode 'explicit'"),
        (
            {"mode": "explicit", "frames": 2, "times_seconds": (1.0,)},
            "1 times for frames = 2",
        ),
        ({"mode": "explicit", "frames": 1, "times_seconds": (-1.0,)}, "a time is negative"),
        ({"mode": "explicit", "frames": 1, "times_seconds": (float("nan"),)}, "finite"),
        ({"frames": 8, "views": 3}, "views: 3, but mode 'uniform' has one view"),
        ({"frames": 8, "stride_seconds": 1.0}, "stride_seconds: needed by mode 'strided'"),
        ({"frames": 5000}, "less than or equal to 4096"),
    ],
)
def test_a_sampling_that_contradicts_itself_is_refused(fields: dict[str, Any], match: str) -> None:
    """Fields that a mode needs are there, and no others."""
    with pytest.raises(ValidationError, match=match):
        Sampling(**fields)


def test_the_schema_can_be_written() -> None:
    """model_store/manifest.schema.json is made from it."""
    schema = Manifest.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) <= set(schema["properties"])
    assert Preprocessing.model_json_schema()["properties"]["std"]["maxItems"] == 3
