"""Changes of what a client says about a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Scalar = bool | int | float | str | None


class MetadataLimitError(Exception):
    """A video would have more keys of metadata than it may."""


@dataclass(frozen=True)
class VideoChange:
    """What is to become different about a video.

    Attributes:
        sets_external_id: whether ``external_id`` is meant, as None too.
        metadata: merged into what is there as RFC 7396 says: None removes a key. None as a whole
            leaves all as it is.
        clears_metadata: what is there is removed first.
        max_keys: that the video may have afterwards.
    """

    sets_external_id: bool = False
    external_id: str | None = None
    metadata: Mapping[str, Scalar] | None = None
    clears_metadata: bool = False
    max_keys: int | None = None

    def merged(self, present: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the metadata that comes of ``present``.

        Raises:
            MetadataLimitError: it would have too many keys.
        """
        merged = {} if self.clears_metadata else dict(present)
        for key, value in (self.metadata or {}).items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = value
        if self.max_keys is not None and len(merged) > max(self.max_keys, len(present)):
            raise MetadataLimitError
        return merged
