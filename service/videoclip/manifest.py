"""The artefact's manifest: everything the service must know about one published model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from service.videoclip.calibration import Calibration
from service.videoclip.input_spec import Finite, Frozen, Share
from service.videoclip.input_spec import Preprocessing as Preprocessing
from service.videoclip.input_spec import Sampling as Sampling

MANIFEST_FILE = "manifest.json"
#: Optional: known outputs, see `service.videoclip.golden`.
GOLDEN_FILE = "golden.safetensors"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

#: Files without which an artefact cannot be served.
REQUIRED_FILES = frozenset(
    {
        "video_encoder.onnx",
        "text_encoder.onnx",
        "weights_clip.safetensors",
        "weights_tuned.safetensors",
        "tokenizer.json",
    }
)
VariantName = Literal["fp16", "int8"]
#: Graphs of the same network in fewer bits; `service.videoclip.number_formats` has their weights.
VARIANT_FILES: dict[VariantName, tuple[str, str]] = {
    "fp16": ("video_encoder.fp16.onnx", "text_encoder.fp16.onnx"),
    "int8": ("video_encoder.int8.onnx", "text_encoder.int8.onnx"),
}
#: Every name a manifest may list. A name that is none of these is refused, so no path can be
#: smuggled in.
ARTEFACT_FILES = (
    REQUIRED_FILES
    | {"video_encoder.ts", "text_encoder.ts", "MODEL_CARD.md", GOLDEN_FILE}
    | {name for names in VARIANT_FILES.values() for name in names}
)
#: Files whose bytes are part of the revision: weights, graphs, tokenizer.
REVISION_FILES = ARTEFACT_FILES - {"MODEL_CARD.md", GOLDEN_FILE}


class ArtefactError(ValueError):
    """An artefact is incomplete, altered or not understood. One line: file, expected, found."""

    def __init__(self, file: str, *, expected: str, found: str) -> None:
        super().__init__(f"{file}: expected {expected}, found {found}")
        self.file = file
        self.expected = expected
        self.found = found

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        return (_restore, (self.file, self.expected, self.found))


def _restore(file: str, expected: str, found: str) -> ArtefactError:
    return ArtefactError(file, expected=expected, found=found)


class FileEntry(Frozen):
    """Hash and size of one file of the artefact."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class LambdaPoint(Frozen):
    """One measured point of the λ curve: data set -> mean over seeds (%), and its spread."""

    clip_weight: Share
    scores: dict[str, Finite]
    spread: dict[str, Finite]


class Parity(Frozen):
    """How far an exported graph is from the eager network."""

    graph: str
    clip_weight: Share
    batch: int = Field(ge=1)
    inputs: Literal["random", "real"]
    max_abs_error: Finite = Field(ge=0.0)
    max_rel_error: Finite = Field(ge=0.0)


class Variant(Frozen):
    """A form of both graphs in fewer bits, and what it costs: see `VARIANT_FILES`.

    top1_loss: data set -> top-1 of the full graphs less that of the variant, in points of %, the
    largest over `clip_weights`; below 0 where the variant is better. It serves every λ, and was
    measured at these. bound: what every loss had to stay within to be published.
    """

    name: VariantName
    runtime: Literal["onnx"] = "onnx"
    files: tuple[str, ...]
    clip_weights: tuple[Share, ...] = Field(min_length=1)
    top1_loss: dict[str, Finite] = Field(min_length=1)
    bound: Finite = Field(ge=0.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.files != VARIANT_FILES[self.name]:
            raise ValueError(f"files: {self.files} are not those of the variant {self.name}")
        worst = max(self.top1_loss, key=lambda name: self.top1_loss[name])
        if self.top1_loss[worst] > self.bound:
            raise ValueError(
                f"top1_loss: {self.top1_loss[worst]:g} on {worst} is above the bound {self.bound:g}"
            )
        return self


class Manifest(Frozen):
    """All facts about one artefact; `folder/manifest.json`."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    revision: str = Field(pattern=r"^[0-9a-f]{12}$")
    created_at: str
    recipe: str
    architecture: dict[str, JsonValue]
    embedding_size: int = Field(ge=1, le=65536)
    frames_per_clip: int = Field(ge=1, le=4096)
    sampling: Sampling
    preprocessing: Preprocessing
    pooling: Literal["normalize_then_mean", "mean_then_normalize"]
    template_set: str
    logit_scale: Finite = Field(gt=0.0, description="already exponentiated: 100 for CLIP")
    context_length: int = Field(ge=3, le=4096)
    tokenizer: Literal["tokenizer.json"] = "tokenizer.json"
    text_tower_tuned: bool
    default_clip_weight: Share
    clip_weight_rule: str
    curve: tuple[LambdaPoint, ...]
    background_labels: tuple[str, ...]
    files: dict[str, FileEntry]
    licence: str
    provenance: dict[str, JsonValue]
    parity: tuple[Parity, ...]
    # Newer than schema version 1: without any it is not written, and older readers can read it.
    variants: tuple[Variant, ...] = Field(default=(), exclude_if=lambda value: not value)
    calibration: Calibration | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = sorted(set(self.files) - ARTEFACT_FILES)
        if unknown:
            raise ValueError(f"files: {unknown[0]!r} is not a file of an artefact")
        missing = sorted(REQUIRED_FILES - set(self.files))
        if missing:
            raise ValueError(f"files: {missing[0]} is missing")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants: one is listed twice: {', '.join(names)}")
        for name, files in VARIANT_FILES.items():
            odd = [file for file in files if (file in self.files) != (name in names)]
            if odd:
                there, not_there = "variants", "files"
                if name not in names:
                    there, not_there = not_there, there
                raise ValueError(f"{odd[0]}: in {there}, but not in {not_there}")
        if self.sampling.frames != self.frames_per_clip:
            raise ValueError(
                f"sampling: {self.sampling.frames} frames, frames_per_clip {self.frames_per_clip}"
            )
        return self


def revision_of(
    files: Mapping[str, FileEntry],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    pooling: str,
) -> str:
    """What decides a vector, as 12 hex digits of a sha256: equal revisions, one embedding space.

    It is taken over the lines ``<sha256>  <name>\\n`` (the format of sha256sum) of the weight,
    graph and tokenizer files, sorted by name, and one more line: a JSON object of `pooling`,
    `preprocessing` and `sampling`, keys sorted, without spaces. `frames_per_clip` is in `sampling`.
    Fields that are newer than schema version 1 are absent while they have their default, so a
    revision keeps its name.
    """
    lines = [f"{e.sha256}  {name}" for name, e in sorted(files.items()) if name in REVISION_FILES]
    way = {"pooling": pooling, "preprocessing": preprocessing, "sampling": sampling}
    text = json.dumps(way, sort_keys=True, separators=(",", ":"), default=BaseModel.model_dump)
    return hashlib.sha256("\n".join((*lines, text, "")).encode()).hexdigest()[:12]


def describe_file(path: Path) -> FileEntry:
    """Hash and size of the file at `path`, for a manifest that is being written."""
    digest, size = _digest(path)
    return FileEntry(sha256=digest, size_bytes=size)


def load_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/manifest.json``; the files it lists are not opened.

    Raises:
        ArtefactError: missing, larger than 4 MiB, no JSON, or not a manifest of version 1. The
            message is one line and names the first field that is wrong.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ArtefactError(
            MANIFEST_FILE, expected="a readable file", found=error.strerror or "an I/O error"
        ) from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ArtefactError(
            MANIFEST_FILE, expected=f"at most {MAX_MANIFEST_BYTES} bytes", found="more"
        )
    try:
        # json and not pydantic's own parser: one message for bad JSON, and no NaN.
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(MANIFEST_FILE, expected="JSON", found=_one_line(error)) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != 1 or isinstance(version, bool):
        raise ArtefactError(MANIFEST_FILE, expected="schema_version 1", found=repr(version)[:80])
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        others = error.error_count() - 1
        more = f" (and {others} more)" if others else ""
        raise ArtefactError(
            MANIFEST_FILE,
            expected=f"a valid {_one_line(field)}",
            found=f"{_one_line(first['msg'])}: {_one_line(repr(first['input']))[:80]}{more}",
        ) from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every listed file with its size and sha256, and the revision with what makes it.

    Raises:
        ArtefactError: names the file, what was expected and what was found.
    """
    for name in sorted(manifest.files):
        verify_file(folder, manifest, name)
    revision = revision_of(
        manifest.files,
        sampling=manifest.sampling,
        preprocessing=manifest.preprocessing,
        pooling=manifest.pooling,
    )
    if revision != manifest.revision:
        raise ArtefactError(MANIFEST_FILE, expected=f"revision {revision}", found=manifest.revision)


def verify_file(folder: Path, manifest: Manifest, name: str) -> None:
    """Compare one listed file with its size and sha256.

    Raises:
        ArtefactError: names the file, what was expected and what was found.
    """
    path, entry = folder / name, manifest.files[name]
    if path.is_symlink() or not path.is_file():
        kind = "a link" if path.is_symlink() else "none"
        raise ArtefactError(name, expected="a regular file", found=kind)
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise ArtefactError(name, expected=f"{entry.size_bytes} bytes", found=f"{size}")
    digest, _ = _digest(path)
    if digest != entry.sha256:
        raise ArtefactError(name, expected=f"sha256 {entry.sha256}", found=digest)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _one_line(value: object) -> str:
    return re.sub(r"[\x00-\x1f\x7f\s]+", " ", str(value)).strip()[:300]
