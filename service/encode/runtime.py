"""What runs the two towers, behind one small protocol, and how a λ becomes a runtime."""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from service.encode.device import Device, DeviceError
from service.videoclip.interpolation import interpolate
from service.videoclip.manifest import (
    VARIANT_FILES,
    ArtefactError,
    Manifest,
    VariantName,
    verify_file,
)

RuntimeName = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "int8"]
Arrays = Mapping[str, npt.NDArray[np.generic]]

_MODULES: Final[dict[RuntimeName, str]] = {
    "onnx": "service.encode.onnx",
    "torchscript": "service.encode.torchscript",
}
VARIANTS: Final[dict[Precision, VariantName]] = {"float16": "fp16", "int8": "int8"}
_SCRIPTS: Final = ("video_encoder.ts", "text_encoder.ts")
_LOGIT_SCALE: Final = "logit_scale"
_VISUAL: Final = "visual."

_log = logging.getLogger(__name__)


class Tower(Protocol):
    """One tower with its weights."""

    def __call__(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Run it.

        Args:
            values: float32 (clips, T, 3, S, S) for the video tower, int64 (n, L) for the text.

        Returns:
            float32 (clips, T, D) or (n, D), not normalised.
        """
        ...


class Runtime(Protocol):
    """Makes towers. A module of this package with these functions."""

    def require(self, device: Device) -> None:
        """Raise DeviceError unless it can run on `device`."""
        ...

    def video_tower(
        self, folder: Path, *, weights: Arrays, threads: int, device: Device, precision: Precision
    ) -> Tower:
        """Load the video graph of the artefact in `folder` with `weights`."""
        ...

    def text_tower(
        self, folder: Path, *, weights: Arrays, threads: int, device: Device, precision: Precision
    ) -> Tower:
        """Load the text graph of the artefact in `folder` with `weights`."""
        ...

    def staging(self, size_bytes: int, device: Device) -> npt.NDArray[np.uint8]:
        """Return memory that inputs are written into: pinned where `device` copies from it."""
        ...


@dataclass(frozen=True)
class Network:
    """Both towers at one λ.

    Attributes:
        clip_weight: the λ that the weights have.
        logit_scale: exp of the interpolated `logit_scale` of the weights, else the manifest's.
    """

    clip_weight: float
    video: Tower
    text: Tower
    logit_scale: float


class Model:
    """An artefact in memory: both end points, from which `build` makes the network at any λ.

    Args:
        folder: the artefact.
        manifest: its manifest.
        runtime: which runtime.
        threads: threads of one call.
        device: where it runs.
        precision: what it computes with: float32, or a variant that the artefact has.

    Raises:
        ArtefactError: a weight file is broken or the two do not fit each other.
        DeviceError: the runtime is not installed, or cannot run on the device or so precisely.
    """

    def __init__(
        self,
        folder: Path,
        *,
        manifest: Manifest,
        runtime: RuntimeName,
        threads: int,
        device: Device,
        precision: Precision = "float32",
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._threads = threads
        self._device = device
        self._precision = precision
        self._graphs = graph_files(precision) if runtime == "onnx" else _SCRIPTS
        self.runtime = _import(runtime)
        self.runtime.require(device)
        _require_variant(manifest, runtime=runtime, precision=precision)
        self._clip = _load(folder / "weights_clip.safetensors")
        self._tuned = _load(folder / "weights_tuned.safetensors")
        self._share_equal_arrays()
        try:
            interpolate(self._clip, self._tuned, clip_weight=1.0)  # compares names and shapes
        except ValueError as error:
            raise ArtefactError(
                "weights_tuned.safetensors", expected="the arrays of CLIP", found=str(error)
            ) from error

    def build(self, clip_weight: float, *, beside: Network | None = None) -> Network:
        """Return the network at `clip_weight`, not yet checked; `beside` may be in use meanwhile.

        A text tower that does not depend on λ is taken over from `beside`.

        Raises:
            ArtefactError: graph and weights do not fit, or a graph is not the published one any
                more.
        """
        for name in self._graphs:  # they are read anew for each λ
            if name in self._manifest.files:
                verify_file(self._folder, self._manifest, name)
        weights = interpolate(self._clip, self._tuned, clip_weight=clip_weight)
        visual = {name: value for name, value in weights.items() if name.startswith(_VISUAL)}
        textual = {name: value for name, value in weights.items() if name not in visual}
        video = self.runtime.video_tower(
            self._folder,
            weights=visual,
            threads=self._threads,
            device=self._device,
            precision=self._precision,
        )
        if beside is not None and not self._manifest.text_tower_tuned:
            text = beside.text
        else:
            text = self.runtime.text_tower(
                self._folder,
                weights=textual,
                threads=self._threads,
                device=self._device,
                precision=self._precision,
            )
        scale = weights.get(_LOGIT_SCALE)
        network = Network(
            clip_weight=clip_weight,
            video=video,
            text=text,
            logit_scale=self._manifest.logit_scale if scale is None else float(np.exp(scale)),
        )
        if not np.isfinite(network.logit_scale) or network.logit_scale <= 0:
            raise ArtefactError(
                _LOGIT_SCALE, expected="a positive number", found=f"{network.logit_scale}"
            )
        return network

    @property
    def bytes_per_network(self) -> int:
        """Memory that the weights of one network take, before what the runtime adds."""
        return sum(value.nbytes for value in self._clip.values())

    def _share_equal_arrays(self) -> None:
        # A frozen text tower is alike in both files: keep it once.
        for name, value in self._clip.items():
            other = self._tuned.get(name)
            if other is not None and other.dtype == value.dtype and np.array_equal(value, other):
                self._tuned[name] = value


def _require_variant(manifest: Manifest, *, runtime: RuntimeName, precision: Precision) -> None:
    if precision == "float32":
        return
    if runtime != "onnx":
        raise DeviceError(f"VTAG_PRECISION: {precision} needs VTAG_RUNTIME=onnx")
    if VARIANTS[precision] not in [variant.name for variant in manifest.variants]:
        published = ", ".join(variant.name for variant in manifest.variants) or "none"
        raise DeviceError(
            f"VTAG_PRECISION: {precision} is no variant of {manifest.name} (published: {published})"
        )


def graph_files(precision: Precision) -> tuple[str, str]:
    """Return the names of the ONNX graphs of the video and of the text tower."""
    if precision == "float32":
        return "video_encoder.onnx", "text_encoder.onnx"
    return VARIANT_FILES[VARIANTS[precision]]


def _import(runtime: RuntimeName) -> Runtime:
    try:
        module: Runtime = importlib.import_module(_MODULES[runtime])
    except ModuleNotFoundError as error:
        raise DeviceError(f"VTAG_RUNTIME: {runtime} needs {error.name}, not installed") from error
    return module


def _load(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, npt.NDArray[np.generic]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(path.name, expected="a safetensors file", found=str(error)) from error
    return arrays
