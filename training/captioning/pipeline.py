"""From video files to captions, video by video, over both stages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.videoclip.decoding import Limits, decode_clips
from service.videoclip.errors import VideoError
from service.videoclip.manifest import Preprocessing, Sampling
from training.captioning.records import Records


class Captioner(Protocol):
    """Says what is in pictures; see `FrameCaptioner`."""

    @property
    def image_size(self) -> int:
        """Side of the square pictures it takes."""

    def caption(self, pictures: NDArray[np.uint8]) -> list[str]:
        """uint8 (n, S, S, 3) -> n texts."""


class Merger(Protocol):
    """Makes one sentence of several; see `Summariser`."""

    def merge(self, frame_captions: Sequence[Sequence[str]]) -> list[str]:
        """Lists of texts -> one text for each list."""


#: Videos that were left out, by name, and why.
Failures = tuple[tuple[str, str], ...]


def caption_frames(
    captioner: Captioner,
    videos: Sequence[tuple[str, Path]],
    records: Records,
    *,
    frames: int = 16,
    batch_size: int = 16,
    threads: int = 2,
    on_videos: Callable[[int], None] | None = None,
) -> Failures:
    """Stage one: `frames` evenly spread frames of each video, each with a caption.

    Frames are cut out as the video network sees them: the middle square of the picture, so that no
    caption speaks of what training never shows. A video that cannot be decoded gets no record, and
    returns among the failures. videos: names and files. batch_size: pictures at once; videos are
    taken together as long as they fit. on_videos: called with the number of videos done since the
    last call.
    """
    preprocessing = Preprocessing(
        image_size=captioner.image_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    sampling = Sampling(mode="uniform", frames=frames)

    def decode(path: Path) -> NDArray[np.uint8] | str:
        try:
            clip = decode_clips(
                path, sampling=sampling, preprocessing=preprocessing, limits=Limits()
            )
        except (VideoError, OSError) as error:
            return str(error)
        pixels: NDArray[np.uint8] = clip.pixels[0]
        return pixels

    failed: list[tuple[str, str]] = []
    for group, decoded in _ahead(videos, decode, at_once=batch_size // frames, threads=threads):
        kept = []
        for (name, _), pixels in zip(group, decoded, strict=True):
            if isinstance(pixels, str):
                failed.append((name, pixels))
            else:
                kept.append((name, pixels))
        if kept:
            pictures = np.concatenate([pixels for _, pixels in kept])
            texts = [
                text
                for first in range(0, len(pictures), batch_size)
                for text in captioner.caption(pictures[first : first + batch_size])
            ]
            for i, (name, _) in enumerate(kept):
                records.add(name, texts[i * frames : (i + 1) * frames])
            records.flush()
        if on_videos is not None:
            on_videos(len(group))
    return tuple(failed)


def merge_captions(
    merger: Merger,
    frame_captions: Mapping[str, Sequence[str]],
    records: Records,
    *,
    batch_size: int = 8,
    on_videos: Callable[[int], None] | None = None,
) -> Failures:
    """Stage two: one sentence for each video, of what was said about its frames.

    frame_captions: by the videos' names, in the order of the frames; empty ones are passed over.
    batch_size: videos at once. Returns and calls as stage one does.
    """
    failed: list[tuple[str, str]] = []
    names = list(frame_captions)
    for first in range(0, len(names), batch_size):
        group = names[first : first + batch_size]
        said = {name: [text for text in frame_captions[name] if text] for name in group}
        failed += [(name, "none of its frames has a caption") for name in group if not said[name]]
        asked = [name for name in group if said[name]]
        texts = merger.merge([said[name] for name in asked]) if asked else []
        for name, text in zip(asked, texts, strict=True):
            if text:
                records.add(name, text)
            else:
                failed.append((name, "the language model wrote nothing"))
        records.flush()
        if on_videos is not None:
            on_videos(len(group))
    return tuple(failed)


def _ahead(
    videos: Sequence[tuple[str, Path]],
    decode: Callable[[Path], NDArray[np.uint8] | str],
    *,
    at_once: int,
    threads: int,
) -> Iterator[tuple[Sequence[tuple[str, Path]], list[NDArray[np.uint8] | str]]]:
    """Groups of videos with their frames; the next group is decoded while one is captioned."""
    size = max(1, at_once)
    groups = [videos[first : first + size] for first in range(0, len(videos), size)]
    # The decoder leaves the interpreter lock, so threads help.
    with ThreadPoolExecutor(threads) as pool:
        started = [[pool.submit(decode, path) for _, path in group] for group in groups[:1]]
        for i, group in enumerate(groups):
            present = started.pop()
            started += [[pool.submit(decode, p) for _, p in g] for g in groups[i + 1 : i + 2]]
            yield group, [future.result() for future in present]
