"""Options of a request, checked against what is served."""

import math

from service.videoclip.manifest import Manifest, Sampling


class OptionError(ValueError):
    """An option of a request that cannot be used.

    Attributes:
        code: of `service.errors.PROBLEMS`, for example `invalid_sampling`.
        detail: for the client.
        param: the field.
        limit: what would be allowed.
        actual: what was asked.
    """

    def __init__(
        self, code: str, detail: str, *, param: str, limit: float | None, actual: float
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.param = param
        self.limit = limit
        self.actual = actual


def require_clip_weight(clip_weight: float) -> None:
    """Check that `clip_weight` can be served.

    Raises:
        OptionError: it is not a number in [0, 1].
    """
    if not (math.isfinite(clip_weight) and 0.0 <= clip_weight <= 1.0):
        raise OptionError(
            "invalid_request",
            "lambda must be a number from 0 to 1.",
            param="lambda",
            limit=1.0,
            actual=clip_weight,
        )


def not_resident(clip_weight: float, *, served: float) -> OptionError:
    """Return the error for a λ whose weights may not be built beside the served ones."""
    return OptionError(
        "lambda_not_resident",
        f"lambda {clip_weight:g} is not being served; {served:g} is, and this service keeps one"
        " only (VTAG_RESIDENT_LAMBDAS).",
        param="lambda",
        limit=served,
        actual=clip_weight,
    )


def choose_sampling(sampling: Sampling | None, *, manifest: Manifest) -> Sampling:
    """Return the sampling of a request, the artefact's if it names none.

    Raises:
        OptionError: another number of frames than the network looks at.
    """
    frames = manifest.frames_per_clip
    if sampling is None:
        return manifest.sampling
    if sampling.frames != frames:
        raise OptionError(
            "invalid_sampling",
            f"The model looks at {frames} frames of a clip, not at {sampling.frames}.",
            param="sampling.frames",
            limit=frames,
            actual=sampling.frames,
        )
    return sampling


def choose_spans(start: float | None, end: float | None) -> list[tuple[float, float]] | None:
    """Return the one span (start, end) in seconds of a request, None for the whole video."""
    if start is None and end is None:
        return None
    return [(0.0 if start is None else start, math.inf if end is None else end)]
