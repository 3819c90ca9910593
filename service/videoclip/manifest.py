"""The artefact's manifest: everything the service must know about one published model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

MANIFEST_FILE = "manifest.json"
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
#: Every name a manifest may list. A name that is none of these is refused, so no path can be
#: smuggled in.
ARTEFACT_FILES = REQUIRED_FILES | {"video_encoder.ts", "text_encoder.ts", "MODEL_CARD.md"}
#: Files whose bytes are part of the revision: weights, graphs, tokenizer.
REVISION_FILES = ARTEFACT_FILES - {"MODEL_CARD.md"}


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


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Share = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(_finite)]
Three = tuple[Finite, Finite, Finite]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(_Frozen):
    """Which frames of a video make its clips; `service.videoclip.sampling.plan` reads it.

    ``uniform``: the middles of `frames` equal parts. ``strided``: Open-VCLIP's clip, its frames
    `stride_seconds` apart, `views` clips spread over the video. ``keyframes``: key pictures of
    the stream. ``explicit``: `times_seconds`, as given.
    """

    mode: Literal["uniform", "strided", "keyframes", "explicit"] = "uniform"
    frames: int = Field(ge=1, le=4096)
    views: int = Field(default=1, ge=1, le=64)
    stride_seconds: Finite | None = Field(default=None, gt=0.0)
    times_seconds: tuple[Finite, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mode == "strided") != (self.stride_seconds is not None):
            raise ValueError("stride_seconds: needed by mode 'strided', and by no other")
        if (self.mode == "explicit") != (self.times_seconds is not None):
            raise ValueError("times_seconds: needed by mode 'explicit', and by no other")
        if self.times_seconds is not None:
            if len(self.times_seconds) != self.frames:
                raise ValueError(
                    f"times_seconds: {len(self.times_seconds)} times for frames = {self.frames}"
                )
            if any(time < 0 for time in self.times_seconds):
                raise ValueError("times_seconds: a time is negative")
        if self.views != 1 and self.mode != "strided":
            raise ValueError(f"views: {self.views}, but mode {self.mode!r} has one view")
        return self


class Preprocessing(_Frozen):
    """From an upright RGB picture to the network's input (open_clip's inference transform)."""

    image_size: int = Field(ge=1, le=4096)
    resize: Literal["shortest_side"] = "shortest_side"
    interpolation: Literal["bicubic"] = "bicubic"
    crop: Literal["center"] = "center"
    mean: Three
    std: Three

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std: {self.std} must be above 0")
        return self


class FileEntry(_Frozen):
    """Hash and size of one file of the artefact."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class LambdaPoint(_Frozen):
    """One measured point of the λ curve: data set -> mean over seeds (%), and its spread."""

    clip_weight: Share
    scores: dict[str, Finite]
    spread: dict[str, Finite]


class Parity(_Frozen):
    """How far an exported graph is from the eager network."""

    graph: str
    clip_weight: Share
    batch: int = Field(ge=1)
    inputs: Literal["random", "real"]
    max_abs_error: Finite = Field(ge=0.0)
    max_rel_error: Finite = Field(ge=0.0)


class Manifest(_Frozen):
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = sorted(set(self.files) - ARTEFACT_FILES)
        if unknown:
            raise ValueError(f"files: {unknown[0]!r} is not a file of an artefact")
        missing = sorted(REQUIRED_FILES - set(self.files))
        if missing:
            raise ValueError(f"files: {missing[0]} is missing")
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
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            kind = "a link" if path.is_symlink() else "none"
            raise ArtefactError(name, expected="a regular file", found=kind)
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise ArtefactError(name, expected=f"{entry.size_bytes} bytes", found=f"{size}")
        digest, _ = _digest(path)
        if digest != entry.sha256:
            raise ArtefactError(name, expected=f"sha256 {entry.sha256}", found=digest)
    revision = revision_of(
        manifest.files,
        sampling=manifest.sampling,
        preprocessing=manifest.preprocessing,
        pooling=manifest.pooling,
    )
    if revision != manifest.revision:
        raise ArtefactError(MANIFEST_FILE, expected=f"revision {revision}", found=manifest.revision)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _one_line(value: object) -> str:
    return re.sub(r"[\x00-\x1f\x7f\s]+", " ", str(value)).strip()[:300]
