"""What a bulk load does, as plain data that travels to every machine of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.bulk.source import Source
from service.decode.sandbox import SandboxMode
from service.encode.runtime import Precision, RuntimeName
from service.index.space import Space
from service.settings import Settings
from service.videoclip.decoding import Limits
from service.videoclip.manifest import Manifest


@dataclass(frozen=True)
class Plan:
    """One bulk load.

    Attributes:
        source: where the videos are.
        folder: the artefact, under the same path on every machine.
        space: that the vectors are of.
        collection: that they go to.
        segment_seconds: length of the windows that videos are cut into.
        max_segments: of one video.
        limits: what a video may be.
        decode_timeout_seconds: for one part of a video.
        sandbox: of the children that decode; see `service.decode.sandbox`.
        runtime: that runs the network.
        precision: what it computes with.
    """

    source: Source
    folder: Path
    space: Space
    collection: str
    segment_seconds: float
    max_segments: int
    limits: Limits
    decode_timeout_seconds: float
    sandbox: SandboxMode
    runtime: RuntimeName
    precision: Precision


def make_plan(
    settings: Settings,
    *,
    source: Source,
    folder: Path,
    manifest: Manifest,
    collection: str,
    clip_weight: float,
    segment_seconds: float | None,
) -> Plan:
    """Return what to do under the settings of the service; see `Plan`."""
    return Plan(
        source=source,
        folder=folder,
        space=Space(manifest.name, manifest.revision, clip_weight, manifest.embedding_size),
        collection=collection,
        segment_seconds=segment_seconds or settings.segment_seconds,
        max_segments=settings.max_segments,
        limits=Limits(
            max_pixels=settings.max_pixels, max_duration_seconds=settings.max_duration_seconds
        ),
        decode_timeout_seconds=settings.decode_timeout_seconds,
        sandbox=settings.decode_sandbox,
        runtime=settings.runtime,
        precision="float32" if settings.precision == "auto" else settings.precision,
    )
