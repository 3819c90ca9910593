"""The labelled set of ``POST /lambda/evaluate``: from its body to a plan and files on disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.requests import Request

from service.engine import label_limits
from service.errors import ApiError
from service.intake.body import BodyLimits, media_type
from service.intake.form import read_files
from service.jobs.evaluation_folder import list_folder
from service.jobs.evaluation_plan import (
    EvaluationPlan,
    Item,
    Planner,
    require_decodable,
    too_many_videos,
)
from service.jobs.evaluation_tools import EvaluationTools
from service.jobs.labelled_set import LabelledFile, pair, read_set
from service.jobs.unpack import SetFile, UnpackLimits, unpack
from service.routes.answers import require_model
from service.routes.body import form_options, json_body
from service.routes.client import attended
from service.routes.parts import Parts, body_limits
from service.routes.repeats import digest_of, recognise
from service.schemas_jobs import JobOptions, LambdaEvaluationOptions, LambdaEvaluationRequest
from service.settings import Settings
from service.spool import SpoolFile

_FIELDS: Final = 1200  # beside the videos: classes, templates, options
_OTHER_FILES: Final = 100  # lists, notes and folders of an archive beside its videos
_PROBE_SECONDS: Final = 10.0


async def receive_plan(
    request: Request, parts: Parts, tools: EvaluationTools, folder: Path
) -> tuple[EvaluationPlan, JobOptions]:
    """Read the body, put its files into `folder`, and check everything that can be checked now.

    Returns:
        What is to be measured, and how the job is to be treated.

    Raises:
        ApiError, LabelError, IndexUnavailableError: it cannot be taken; the caller removes
            the folder.
    """
    settings = parts.settings
    planner = Planner(
        tools.encoder.manifest,
        limits=label_limits(settings),
        max_videos=settings.max_evaluation_videos,
    )
    if media_type(request) == "json":
        options = await json_body(
            request, parts, LambdaEvaluationRequest, max_bytes=settings.max_json_bytes
        )
        _check(options, parts)
        if options.videos is not None:
            return await planner.index(options.videos, options, tools.index), options
        videos = await asyncio.to_thread(_below_root, settings, options.folder or "")
        taken: tuple[EvaluationPlan, JobOptions] = (
            planner.files(_items(videos, folder=None), options),
            options,
        )
    else:
        with parts.admission.enter("upload"):
            taken = await _upload(request, parts, planner, folder)
    plan, _ = taken
    await require_decodable(plan, folder=folder, decoder=tools.decoder, seconds=_PROBE_SECONDS)
    return taken


def _check(options: LambdaEvaluationOptions, parts: Parts) -> None:
    require_model(options.model, parts)
    if options.webhook is not None and parts.webhooks is not None:
        parts.webhooks.check(options.webhook)


async def _upload(
    request: Request, parts: Parts, planner: Planner, folder: Path
) -> tuple[EvaluationPlan, JobOptions]:
    settings = parts.settings
    parts.spool.require_room()
    files = _SetFiles(folder, settings)
    try:
        limits = _limits(settings)
        fields = await read_files(request, files, limits, fingerprint=digest_of(request))
    finally:
        files.close()
    recognise(request)
    parts.metrics.upload_bytes.inc(files.size_bytes)
    labels = [text for name, text in fields if name == "labels"]
    options = form_options(
        [(name, text) for name, text in fields if name != "labels"], LambdaEvaluationOptions
    )
    _check(options, parts)
    if (files.archive is None) == (not files.videos):
        raise ApiError(
            "missing_video", "Send one archive, or videos and their labels.", param="archive"
        )
    if files.archive is not None:
        if labels:
            raise ApiError(
                "invalid_request", "The labels of an archive are inside it.", param="labels"
            )
        seconds = settings.upload_timeout_seconds
        work = _unpacked(files.archive, folder, settings, seconds=seconds)
        videos = await attended(request, work, seconds=seconds)
    else:
        if len(labels) != 1:
            raise ApiError("invalid_request", "Videos need one field labels.", param="labels")
        videos = pair(files.videos, labels[0])
    return planner.files(_items(videos, folder=folder), options), options


async def _unpacked(
    archive: Path, folder: Path, settings: Settings, *, seconds: float
) -> list[LabelledFile]:
    target = folder / "unpacked"
    target.mkdir(mode=0o700)
    limits = UnpackLimits(
        max_files=2 * settings.max_evaluation_videos + _OTHER_FILES,
        max_bytes=settings.max_evaluation_bytes,
        max_file_bytes=settings.max_upload_bytes,
        reserve_bytes=settings.spool_reserve_bytes,
        seconds=seconds,
    )
    files = await unpack(archive, target=target, limits=limits)
    await asyncio.to_thread(archive.unlink)
    return await asyncio.to_thread(
        read_set, files, max_list_bytes=settings.max_field_bytes, param="archive"
    )


def _below_root(settings: Settings, folder: str) -> list[LabelledFile]:
    if settings.evaluation_root is None:
        raise ApiError(
            "folder_not_allowed",
            "This service has no VTAG_EVALUATION_ROOT; upload the videos.",
            param="folder",
        )
    most = 2 * settings.max_evaluation_videos + _OTHER_FILES
    files = list_folder(settings.evaluation_root, folder, max_files=most)
    return read_set(files, max_list_bytes=settings.max_field_bytes, param="folder")


def _items(videos: list[LabelledFile], *, folder: Path | None) -> list[Item]:
    """Paths of uploads are kept relative to the folder of their job."""
    return [
        Item(
            video.name,
            str(video.path if folder is None else video.path.relative_to(folder)),
            video.label,
        )
        for video in videos
    ]


def _limits(settings: Settings) -> BodyLimits:
    return replace(
        body_limits(settings),
        max_video_bytes=settings.max_evaluation_bytes,
        max_parts=settings.max_evaluation_videos + _FIELDS,
    )


class _SetFiles:
    """Parts of the form that are files, written under names of ours."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.archive: Path | None = None
        self.videos: list[SetFile] = []
        self.size_bytes = 0
        self._folder = folder
        self._settings = settings
        self._open: list[SpoolFile] = []  # the last is being received, others wait to be written

    def begin(self, name: str, file_name: str | None) -> SpoolFile | None:
        """Give a part called ``archive`` or ``video`` a file of its own."""
        if name == "archive":
            if self.archive is not None:
                raise ApiError("malformed_multipart", "The form has two archives.", param=name)
            self.archive = self._folder / "archive"
            return self._new(self.archive, self._settings.max_evaluation_bytes, param=name)
        if name == "video":
            most = self._settings.max_evaluation_videos
            if len(self.videos) >= most:
                raise too_many_videos(limit=most, actual=len(self.videos) + 1)
            path = self._folder / f"{len(self.videos):06d}"
            # For people and to be matched with labels; nothing is opened by this name.
            shown = PurePosixPath((file_name or "").replace("\\", "/")).name[:200]
            self.videos.append(SetFile(shown or path.name, path))
            return self._new(path, self._settings.max_upload_bytes, param=name)
        if file_name is not None and name not in ("labels", "request"):
            raise ApiError(
                "malformed_multipart",
                "Only archive, video and labels may be files.",
                param=name[:64],
            )
        return None

    def _new(self, path: Path, max_bytes: int, *, param: str) -> SpoolFile:
        file = SpoolFile(path, max_bytes=max_bytes, param=param)
        self._open.append(file)
        return file

    async def drain(self, *, everything: bool = False) -> None:
        """Write what waits; files that are complete are written out and closed."""
        while len(self._open) > 1 or (everything and self._open):
            file = self._open[0]
            await file.drain(everything=True)
            self.size_bytes += file.size_bytes
            file.close()
            del self._open[0]
        if self._open:
            await self._open[0].drain()

    def close(self) -> None:
        """Close what was not received to its end."""
        for file in self._open:
            file.close()
        self._open.clear()
