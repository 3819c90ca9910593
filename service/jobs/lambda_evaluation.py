"""The job that measures λ on a labelled set: every video decoded once, every λ built and dropped.

The served λ has no part in it: its answers are the same before, during and after. The work stands
back for requests at the decoders and at the encoder.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.encode.trial import Trial, TrialGoneError
from service.errors import ApiError
from service.frames import map_slot
from service.index.video_index import Space
from service.jobs.curve import measure, recommend
from service.jobs.evaluation_plan import EvaluationPlan, PlannedVideo, no_decodable_video
from service.jobs.evaluation_tools import EvaluationTools, Lend
from service.jobs.frame_file import FrameFile
from service.jobs.job import Json
from service.jobs.running import RunningJob, insist
from service.jobs.standing_back import stand_back
from service.label_encoder import TextVectors
from service.tags import truncation
from service.videoclip.errors import VideoError
from service.videoclip.pooling import combine_views, pool
from service.videoclip.ranking import ranks

_BUILDS: Final = 5
"""How often a λ is built again when its network is gone, before the job gives up."""

_READ_BYTES: Final = 3 * 2 * 224 * 224
"""Pixels of one step, but one video at least; between two steps requests are looked at."""


class LambdaEvaluation:
    """Handler of the jobs of kind `evaluation_plan.KIND`.

    Args:
        lend: see `Lend`.
        cache_bytes: decoded frames on disk at once; larger sets are done in groups.
    """

    def __init__(self, lend: Lend, *, cache_bytes: int) -> None:
        self._lend = lend
        self._cache_bytes = cache_bytes

    async def run(self, job: RunningJob) -> Json:
        """Measure every λ and recommend one; goes on after what an earlier attempt finished.

        Raises:
            ApiError: ``model_changed``, ``job_interrupted``, ``no_decodable_video``.
            EncoderError, ArtefactError, IndexUnavailableError: as their origins say.
        """
        plan = EvaluationPlan.model_validate(job.request)
        async with self._lend() as tools:
            return await self._run(job, plan, tools)

    async def _run(self, job: RunningJob, plan: EvaluationPlan, tools: EvaluationTools) -> Json:
        manifest = tools.encoder.manifest
        served = f"{manifest.name}@{manifest.revision}"
        if plan.space != served:
            raise ApiError(
                "model_changed",
                f"The job was sent for {plan.space}, {served} is served now; send it again.",
                limit=served,
                actual=plan.space,
            )
        if plan.source == "files" and not await asyncio.to_thread(job.folder.is_dir):
            raise ApiError("job_interrupted", "The videos of this job are gone; send it again.")
        attempt = _Attempt(tools, job, plan, cache_bytes=self._cache_bytes)
        return await attempt.run()


class _Attempt:
    """One run over one plan; the ranks of each group of videos at each λ are kept as they come."""

    def __init__(
        self, tools: EvaluationTools, job: RunningJob, plan: EvaluationPlan, *, cache_bytes: int
    ) -> None:
        self._tools = tools
        self._job = job
        self._plan = plan
        manifest = self._manifest = tools.encoder.manifest
        size = manifest.preprocessing.image_size
        self._shape = (manifest.sampling.views, manifest.sampling.frames, size, size, 3)
        self._cache_bytes = cache_bytes
        self._group = max(1, cache_bytes // int(np.prod(self._shape)))
        self._text: TextVectors | None = None
        self._pieces: dict[str, Json] = {}
        self._done = 0
        self._total = len(plan.videos) * (1 + len(plan.clip_weights))

    async def run(self) -> Json:
        self._pieces = dict(await self._job.pieces())
        videos = self._plan.videos
        groups = [videos[i : i + self._group] for i in range(0, len(videos), self._group)]
        for number, group in enumerate(groups):
            await self._do(number, group)
        return self._result(groups)

    async def _do(self, number: int, group: Sequence[PlannedVideo]) -> None:
        finished = [w for w in self._plan.clip_weights if _name(number, w) in self._pieces]
        missing = [w for w in self._plan.clip_weights if _name(number, w) not in self._pieces]
        if not missing and str(number) in self._pieces:
            self._tell("evaluating", len(group) * (1 + len(finished)))
            return
        frames: FrameFile | None = None
        skipped: list[Json] = []
        if self._plan.source == "files":
            frames = FrameFile(self._job.folder / "frames", shape=self._shape)
            skipped = await self._decode(group, frames)
        else:
            self._tell("evaluating", len(group))
        await self._keep(str(number), {"skipped": skipped})
        self._tell("evaluating", len(group) * len(finished))
        gone = {entry["position"] for entry in skipped}
        left = [video for position, video in enumerate(group) if position not in gone]
        for weight in missing:
            found = await self._measure(weight, left, frames) if left else []
            await self._keep(_name(number, weight), {"ranks": found})
            self._tell("evaluating", len(group) - len(left))

    async def _keep(self, name: str, content: Json) -> None:
        await self._job.save(name, content)
        self._pieces[name] = content

    async def _decode(self, group: Sequence[PlannedVideo], frames: FrameFile) -> list[Json]:
        """Decode each video into `frames`; return those that cannot be, by position."""
        skipped: list[Json] = []
        for position, video in enumerate(group):
            await stand_back(self._tools)
            try:
                await self._decode_one(self._job.folder / video.where, frames)
            except VideoError as error:
                why = {"video": video.name, "code": error.code, "detail": error.detail}
                skipped.append({"position": position, **why})
            self._tell("decoding", 1)
        return skipped

    async def _decode_one(self, path: Path, frames: FrameFile) -> None:
        slots = self._tools.slots
        async with slots.lease(self._shape) as slot:
            await self._tools.decoder.decode(
                path,
                sampling=self._manifest.sampling,
                preprocessing=self._manifest.preprocessing,
                slot=slot,
            )
            pixels = map_slot(slots.descriptor, slot=slot).copy()
        try:
            await asyncio.to_thread(frames.append, pixels)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            detail = "There is no room for the decoded frames of this job."
            raise ApiError("spool_full", detail, limit=self._cache_bytes) from None

    async def _measure(
        self, weight: float, videos: Sequence[PlannedVideo], frames: FrameFile | None
    ) -> list[int]:
        """Return the ranks of the right labels at one λ."""
        done = self._done
        for build in range(1, _BUILDS + 1):
            self._done = done
            try:
                return await self._try(weight, videos, frames)
            except TrialGoneError:
                if build == _BUILDS:
                    raise
        raise AssertionError("unreachable")

    async def _try(
        self, weight: float, videos: Sequence[PlannedVideo], frames: FrameFile | None
    ) -> list[int]:
        labels = [video.label for video in videos]
        if frames is None:
            # Only the text tower is used, and one that λ does not change is there already.
            tuned = self._manifest.text_tower_tuned
            async with self._tools.encoder.trial(
                weight if tuned else self._tools.encoder.clip_weight
            ) as trial:
                text = await self._texts(trial)
            vectors = await self._indexed(weight, videos)
            self._tell("evaluating", len(videos))
            return [int(rank) for rank in ranks(vectors @ text.T, labels)]
        await stand_back(self._tools)  # building takes the processor, too
        async with self._tools.encoder.trial(weight) as trial:
            text = await self._texts(trial)
            found: list[int] = []
            step = max(1, _READ_BYTES // frames.video_bytes)
            for first in range(0, len(videos), step):
                last = min(first + step, len(videos))
                await stand_back(self._tools)
                pixels = await asyncio.to_thread(frames.read, first, last)
                pooled = self._pool(await trial.encode_clips(pixels))
                found += ranks(pooled @ text.T, labels[first:last]).tolist()
                self._tell("evaluating", last - first)
            return found

    async def _texts(self, trial: Trial) -> npt.NDArray[np.float32]:
        """Return the classifier (C, D); once for all λ if they do not change it."""
        if self._text is None or self._manifest.text_tower_tuned:
            self._text = await self._tools.labels.encode_by(
                trial.encode_texts, self._plan.classes, templates=self._plan.templates
            )
        return self._text.vectors

    async def _indexed(
        self, weight: float, videos: Sequence[PlannedVideo]
    ) -> npt.NDArray[np.float32]:
        """Return the mean of the segments of each video (n, D), as the index has them."""
        manifest = self._manifest
        space = Space(manifest.name, manifest.revision, weight, manifest.embedding_size)
        ids = [video.where for video in videos]
        there = await insist(lambda: self._tools.index.embeddings(ids, space=space))
        gone = [name for name in ids if name not in there]
        if gone:
            raise ApiError(
                "invalid_labelled_set",
                f"A video is not in the index at {weight:g} any more; send the job again.",
                param="videos",
                actual=gone[0],
            )
        return np.stack([there[name].mean(axis=0) for name in ids])

    def _pool(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        pooling = self._manifest.pooling
        clips = pool(vectors, pooling=pooling)
        return combine_views(clips.reshape(-1, self._shape[0], clips.shape[-1]), pooling=pooling)

    def _tell(self, stage: str, units: int) -> None:
        self._done += units
        self._job.report(stage, done=self._done, total=self._total)

    def _result(self, groups: Sequence[Sequence[PlannedVideo]]) -> dict[str, Any]:
        skipped: list[Json] = []
        labels: list[int] = []
        found: Mapping[float, list[int]] = {weight: [] for weight in self._plan.clip_weights}
        for number, group in enumerate(groups):
            entries = self._pieces[str(number)]["skipped"]
            gone = {entry["position"] for entry in entries}
            skipped += [{k: v for k, v in entry.items() if k != "position"} for entry in entries]
            labels += [v.label for position, v in enumerate(group) if position not in gone]
            for weight, values in found.items():
                values += self._pieces[_name(number, weight)]["ranks"]
        if not labels:
            last = VideoError(skipped[-1]["detail"], code=skipped[-1]["code"]) if skipped else None
            raise no_decodable_video(len(self._plan.videos), last)
        classes = self._plan.classes
        points = [measure(w, v, labels=labels, classes=classes) for w, v in found.items()]
        recommended = recommend(points, self._plan.rule)
        cut = () if self._text is None else truncation(classes, self._text.truncated)
        return {
            "model": self._manifest.name,
            "revision": self._manifest.revision,
            "source": self._plan.source,
            "videos": len(labels),
            "classes": list(classes),
            "skipped": skipped,
            "rule": self._plan.rule.model_dump(mode="json"),
            "points": [point.answer() for point in points],
            "recommended": {"lambda": recommended.clip_weight, "why": recommended.why},
            "warnings": [{"code": item.code, "detail": item.detail} for item in cut],
        }


def _name(group: int, clip_weight: float) -> str:
    return f"{group}/{clip_weight:g}"
