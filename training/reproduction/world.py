"""The videos of a reproduction: Motion World with a seed of its own, drawn, encoded, decoded."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.videoclip.manifest import Preprocessing
from training.config import ConfigError, load_config
from training.data.annotations import LabelledVideo
from training.data.few_shot import Subset
from training.data.motion_world import sets
from training.demo_config import DemoConfig
from training.evaluate.base_to_novel import base_and_novel
from training.reproduction.config import DrawnWorld
from training.select_lambda import EvaluationSet, RetrievalSet
from training.workshop import FRAMES, Workshop

SOURCE = "source"
TARGET = "unseen-pairs"  # the set that few-shot and base-to-novel runs learn
CLASSES = sets.CLASS_SETS
RETRIEVAL = "retrieval"
BASE, NOVEL = "base", "novel"
_DEMO = Path(__file__).parents[1] / "configs" / "demo.toml"


@dataclass(frozen=True, eq=False)
class Clips:
    """Videos to learn from.

    frames: uint8 (N, all frames, S, S, 3). labels: int64 (N,), positions in `classes`. captions: N
    sentences that say all that is in a video.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    captions: tuple[str, ...]

    def of(self, subset: Subset) -> "Clips":
        """The part that a subset takes; its classes are only those that are left, in order."""
        named = [
            LabelledVideo(Path(str(row)), self.classes[label])
            for row, label in enumerate(self.labels)
        ]
        rows = [int(str(video.path)) for video in subset.of(named)]
        left = {self.classes[self.labels[row]] for row in rows}
        classes = tuple(name for name in self.classes if name in left)
        return Clips(
            frames=self.frames[rows],
            labels=np.array([classes.index(self.classes[self.labels[r]]) for r in rows]),
            classes=classes,
            captions=tuple(self.captions[row] for row in rows),
        )

    def first(self, per_class: int) -> "Clips":
        """At most so many videos of each class, the first ones."""
        rows = np.sort(
            np.concatenate(
                [np.flatnonzero(self.labels == i)[:per_class] for i in range(len(self.classes))]
            )
        )
        return replace(
            self,
            frames=self.frames[rows],
            labels=self.labels[rows],
            captions=tuple(self.captions[row] for row in rows),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Some videos of a test set, `of`, with only some of its classes to choose from."""

    of: str
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """A folder of drawn sets. What is not there yet is drawn when it is asked for."""

    folder: Path
    drawn: DrawnWorld
    processes: int

    @property
    def preprocessing(self) -> Preprocessing:
        """Of all videos in it."""
        return self._workshop.preprocessing

    def draw(self) -> None:
        """Draw everything. Raises ConfigError when the folder belongs to another world."""
        self._workshop.claim()
        self._shots.claim()
        for name in (*CLASSES, RETRIEVAL):
            self._workshop.videos(name, "test")
        self._workshop.videos(SOURCE, "validation")
        self._shots.videos(TARGET, "train")
        self._workshop.videos(SOURCE, "train")

    @cached_property
    def source(self) -> Clips:
        """To learn from: its Kinetics."""
        return _clips(self._workshop, SOURCE)

    @cached_property
    def target(self) -> Clips:
        """To learn a few of: its UCF."""
        return _clips(self._shots, TARGET)

    @cached_property
    def validation(self) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Other videos of the source, uint8 (N, 8, S, S, 3), and their captions."""
        count = self.drawn.validation_videos
        captions = _captions(SOURCE, "validation", count=count, seed=self.drawn.seed)
        return _middle(self._workshop.videos(SOURCE, "validation").frames), captions

    @cached_property
    def measured(self) -> dict[str, EvaluationSet | RetrievalSet]:
        """The test sets by name.

        Of the frames of a video the middle ones of eight equal parts are taken, as in serving.
        """
        found: dict[str, EvaluationSet | RetrievalSet] = {}
        for name in CLASSES:
            data = self._workshop.videos(name, "test")
            found[name] = replace(data, frames=_middle(data.frames))
        videos = self._workshop.videos(RETRIEVAL, "test")
        count = self.drawn.test_videos
        found[RETRIEVAL] = RetrievalSet(
            frames=_middle(videos.frames),
            texts=_captions(RETRIEVAL, "test", count=count, seed=self.drawn.seed),
            video_of=np.arange(count),
        )
        return found

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Parts of test sets that are asked with fewer classes: the halves of the target's."""
        target = self.measured[TARGET]
        assert isinstance(target, EvaluationSet)
        base, novel = base_and_novel(target.classes, seed=Subset().seed)
        return {BASE: _part(target, base), NOVEL: _part(target, novel)}

    @cached_property
    def _workshop(self) -> Workshop:
        return self._of(self.folder / "world", self.drawn.source_videos)

    @cached_property
    def _shots(self) -> Workshop:
        return self._of(self.folder / "shots", self.drawn.target_videos)

    def _of(self, folder: Path, videos: int) -> Workshop:
        demo = load_config(_DEMO, DemoConfig)
        world = replace(
            demo.world,
            source_videos=videos,
            validation_videos=self.drawn.validation_videos,
            test_videos=self.drawn.test_videos,
        )
        own = replace(demo, seed=self.drawn.seed, processes=self.processes, world=world)
        if demo.seed == self.drawn.seed:
            raise ConfigError(f"world.seed = {demo.seed}: the demo's own; take another")
        return Workshop(folder, own)


def _clips(workshop: Workshop, name: str) -> Clips:
    videos = workshop.videos(name, "train")
    captions = _captions(name, "train", count=len(videos.labels), seed=workshop.config.seed)
    return Clips(videos.frames, videos.labels.astype(np.int64), videos.classes, captions)


def _captions(name: str, split: sets.Split, *, count: int, seed: int) -> tuple[str, ...]:
    return tuple(each.caption for each in sets.examples(name, split, count=count, seed=seed))


def _middle(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = frames.shape[1] // FRAMES
    return np.ascontiguousarray(frames[:, step // 2 :: step])


def _part(data: EvaluationSet, classes: tuple[str, ...]) -> Part:
    rows = np.array([r for r, label in enumerate(data.labels) if data.classes[label] in classes])
    labels = np.array([classes.index(data.classes[data.labels[row]]) for row in rows])
    return Part(of=TARGET, rows=rows, labels=labels, classes=classes)
