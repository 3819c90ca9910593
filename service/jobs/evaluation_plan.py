"""What an evaluation of λ is going to do, checked before it is taken as a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from service.decode.pool import DecodePool
from service.encode.space import round_clip_weight
from service.errors import ApiError
from service.index.video_index import VideoIndex
from service.labels import (
    LabelLimits,
    LabelQuery,
    choose_templates,
    normalise,
    normalise_queries,
    require_sentences,
)
from service.schemas_jobs import LabelledVideo, LambdaEvaluationOptions, LambdaRule
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Manifest

KIND: Final = "evaluate_lambda"
DEFAULT_LAMBDAS: Final = tuple(round(tenth / 10, 4) for tenth in range(11))

_LOOKS_AT_ONCE: Final = 8


class Item(NamedTuple):
    """A video to be planned for: its name for people, where it is (a path or an id), its label."""

    name: str
    where: str
    label: str


class PlannedVideo(BaseModel):
    """A video of a plan; `label` is a position in its classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    where: str
    label: int


class EvaluationPlan(BaseModel):
    """Everything that decides the result of an evaluation; the request of its job.

    Attributes:
        space: `name@revision` of the model.
        source: `files` with paths, or `index` with ids of videos.
        clip_weights: ascending.
        classes: normalised, in words.
        templates: prompt templates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str
    source: Literal["files", "index"]
    clip_weights: tuple[float, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    rule: LambdaRule
    videos: tuple[PlannedVideo, ...]


class Planner:
    """Makes plans for one artefact.

    Args:
        manifest: of the artefact that is served.
        limits: of labels and templates.
        max_videos: of one evaluation.
    """

    def __init__(self, manifest: Manifest, *, limits: LabelLimits, max_videos: int) -> None:
        self._manifest = manifest
        self._limits = limits
        self._max_videos = max_videos

    @property
    def space(self) -> str:
        """Name and revision of the artefact."""
        return f"{self._manifest.name}@{self._manifest.revision}"

    def files(self, items: Sequence[Item], options: LambdaEvaluationOptions) -> EvaluationPlan:
        """Return the plan for video files.

        Raises:
            ApiError, LabelError: the request cannot be used.
        """
        return self._plan("files", items, options, DEFAULT_LAMBDAS)

    async def index(
        self, videos: Sequence[LabelledVideo], options: LambdaEvaluationOptions, index: VideoIndex
    ) -> EvaluationPlan:
        """Return the plan for videos of the index, at the λ at which all of them are indexed.

        Raises:
            ApiError, LabelError: the request cannot be used.
            IndexUnavailableError: the index does not answer.
        """
        self._require_count(len(videos))
        if len({video.id for video in videos}) != len(videos):
            raise ApiError("invalid_labelled_set", "A video is named twice.", param="videos")
        there = await self._indexed([video.id for video in videos], index)
        asked = None if options.lambdas is None else _rounded(options.lambdas)
        lacking = [weight for weight in asked or () if weight not in there]
        if not there or lacking:
            named = ", ".join(f"{weight:g}" for weight in there) or "none"
            raise ApiError(
                "index_lambda_mismatch",
                "Videos of the index are evaluated by the vectors that they have there, as videos"
                f" themselves are not kept; at these lambdas all of them have some: {named}.",
                param="lambdas",
                limit=[f"{weight:g}" for weight in there],
                actual=lacking[0] if lacking else None,
            )
        items = [Item(video.id, video.id, video.label) for video in videos]
        return self._plan("index", items, options, there)

    async def _indexed(self, ids: Sequence[str], index: VideoIndex) -> tuple[float, ...]:
        common: set[float] | None = None
        for first in range(0, len(ids), _LOOKS_AT_ONCE):
            part = ids[first : first + _LOOKS_AT_ONCE]
            for number, video in enumerate(await asyncio.gather(*map(index.get, part)), first):
                if video is None:
                    raise ApiError(
                        "invalid_labelled_set",
                        "There is no video with this id.",
                        param=f"videos.{number}.id",
                        actual=ids[number],
                    )
                spaces = (space.rpartition("/") for space in video.spaces)
                weights = {float(weight) for name, _, weight in spaces if name == self.space}
                common = weights if common is None else common & weights
        return tuple(sorted(common or ()))

    def _plan(
        self,
        source: Literal["files", "index"],
        items: Sequence[Item],
        options: LambdaEvaluationOptions,
        lambdas: Sequence[float],
    ) -> EvaluationPlan:
        self._require_count(len(items))
        labels = [normalise(item.label, limits=self._limits) for item in items]
        classes = self._classes(labels, options.classes)
        position = {label: number for number, label in enumerate(classes)}
        templates = choose_templates(
            templates=options.templates,
            template_set=options.template_set,
            default_set=self._manifest.template_set,
            limits=self._limits,
        )
        require_sentences(len(classes), len(templates), param="classes", limits=self._limits)
        return EvaluationPlan(
            space=self.space,
            source=source,
            clip_weights=_rounded(options.lambdas or lambdas),
            classes=classes,
            templates=templates,
            rule=options.rule,
            videos=tuple(
                PlannedVideo(name=item.name, where=item.where, label=position[label])
                for item, label in zip(items, labels, strict=True)
            ),
        )

    def _require_count(self, videos: int) -> None:
        if not videos:
            raise ApiError("missing_video", "The set holds no videos.", param="videos")
        if videos > self._max_videos:
            raise too_many_videos(limit=self._max_videos, actual=videos)

    def _classes(self, labels: Iterable[str], given: Sequence[str] | None) -> tuple[str, ...]:
        used = sorted(set(labels))
        queries = normalise_queries(
            [LabelQuery((text,)) for text in (used if given is None else given)],
            limits=self._limits,
        )
        classes = tuple(query.text[0] for query in queries)
        unknown = [label for label in used if label not in classes]
        if unknown:
            raise ApiError(
                "invalid_labelled_set",
                "A label of the set is none of the classes.",
                param="classes",
                actual=unknown[0],
            )
        if len(classes) < 2:
            raise ApiError(
                "invalid_labelled_set",
                "With one class every video is right; name at least two in classes.",
                param="classes",
                limit=2,
                actual=len(classes),
            )
        return classes


def too_many_videos(*, limit: int, actual: int) -> ApiError:
    """The refusal of a set that is too large."""
    return ApiError(
        "too_many_videos",
        f"The set holds more than {limit} videos.",
        param="videos",
        limit=limit,
        actual=actual,
    )


async def require_decodable(
    plan: EvaluationPlan, *, folder: Path, decoder: DecodePool, seconds: float
) -> None:
    """Look into the videos until one can be opened, for at most `seconds`.

    Raises:
        ApiError: ``no_decodable_video``: all were looked at and none can.
    """
    end = time.monotonic() + seconds
    for video in plan.videos:
        try:
            await decoder.probe(folder / video.where)
            return
        except VideoError as error:
            last = error
        if time.monotonic() > end:
            return  # the job will tell
    raise no_decodable_video(len(plan.videos), last)


def no_decodable_video(videos: int, last: VideoError | None) -> ApiError:
    """The refusal of a set of which nothing is left."""
    reason = "" if last is None else f" The last: {last.detail}"
    return ApiError(
        "no_decodable_video",
        f"None of the {videos} videos can be decoded.{reason}",
        param="videos",
        actual=videos,
    )


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(sorted({round_clip_weight(value) for value in values}))
