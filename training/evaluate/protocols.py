"""Evaluation protocols by name and version: what is measured, on which videos, among which labels.

A version changes whenever a result under it could change. Classes and numbers of videos are facts
of the data sets and of the papers (Open-VCLIP section 4, ViFi-CLIP section 4, FitCLIP section 4,
Text4Vis section 4, and the lists that their authors published).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from training.errors import Refusal
from training.evaluate.class_lists import class_list
from training.evaluate.draws import open_vclip_draws, text4vis_draws

Task = Literal["classification", "retrieval"]
Classes = tuple[str, ...]
#: Class lists of the user's files, in the order given -> parts.
Build = Callable[[Sequence[Classes]], "tuple[Part, ...]"]


class ProtocolError(Refusal):
    """No such protocol, or it cannot be applied to what was given; says what it needs."""


@dataclass(frozen=True)
class Part:
    """One measurement of a protocol.

    name: in results, such as "draw 3". classes: the labels to choose from; None: those of the list
    of videos. videos: how many there are in the papers, fewest and most; None: nobody counted.
    class_count: how many classes the user's files are to have; None: any number.
    """

    name: str
    classes: Classes | None = None
    videos: tuple[int, int] | None = None
    class_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured; a result is the mean over the parts, and their spread.

    name, dataset, version: together the protocol's name in results. needs: what the user brings,
    in words. class_files: how many files with names of classes, fewest and most. lists: how many
    lists of videos; with 1 each part takes its classes' videos out of it, with more each part has
    its own. leaves_others_out: a video of a label that is no class is left out, not refused.
    """

    name: str
    dataset: str
    definition: str
    needs: str
    build: Build
    version: int = 1
    task: Task = "classification"
    class_files: tuple[int, int] = (0, 0)
    lists: tuple[int, ...] = (1,)
    leaves_others_out: bool = False

    @property
    def title(self) -> str:
        """Such as "EP1/ucf101 v1"."""
        return f"{self.name}/{self.dataset} v{self.version}"

    def parts(self, class_files: Sequence[Classes] = ()) -> tuple[Part, ...]:
        """The measurements, in order. class_files: lists of classes that the user brought.

        Raises ProtocolError when there are too few or too many of them.
        """
        low, high = self.class_files
        if not low <= len(class_files) <= high:
            raise ProtocolError(
                f"{self.title}: {len(class_files)} files with classes, {_count(low, high)} wanted; "
                f"it needs {self.needs}"
            )
        return self.build(class_files)

    def expected_videos(self) -> str:
        """Numbers of videos in words, "unknown" where nobody counted."""
        counts = [p.videos for p in self.parts([("",)] * self.class_files[0]) if p.videos]
        return " / ".join(dict.fromkeys(_count(*c) for c in counts)) or "unknown"


def find(name: str, dataset: str | None) -> Protocol:
    """The protocol of that name, whatever its case, for a data set.

    dataset: None is enough where there is only one. Raises ProtocolError, which lists the choices.
    """
    named = [p for p in PROTOCOLS if p.name.casefold() == name.casefold()]
    if not named:
        names = ", ".join(dict.fromkeys(p.name for p in PROTOCOLS))
        raise ProtocolError(f"protocol {name!r}: unknown; known are {names}")
    fitting = [p for p in named if dataset is None or p.dataset == dataset.casefold()]
    if len(fitting) != 1:
        sets = ", ".join(p.dataset for p in named)
        given = "of which data set" if dataset is None else f"not for --dataset {dataset}"
        raise ProtocolError(f"protocol {named[0].name}: {given}; --dataset is one of {sets}")
    return fitting[0]


def of_dataset(dataset: str) -> tuple[Protocol, ...]:
    """The protocols of a data set, whatever its case. Raises ProtocolError for one without any."""
    found = tuple(p for p in PROTOCOLS if p.dataset == dataset.casefold())
    if not found:
        sets = ", ".join(dict.fromkeys(p.dataset for p in PROTOCOLS))
        raise ProtocolError(f"--dataset {dataset}: one of {sets}")
    return found


def _count(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _draws(
    name: str, halves: Callable[[Classes], tuple[Classes, ...]], videos: tuple[int, int] | None
) -> Build:
    def build(_: Sequence[Classes]) -> tuple[Part, ...]:
        return tuple(Part(f"draw {i}", c, videos) for i, c in enumerate(halves(class_list(name))))

    return build


def _splits(names: Sequence[str], counts: Sequence[int]) -> Build:
    def build(_: Sequence[Classes]) -> tuple[Part, ...]:
        return tuple(
            Part(f"split {i}", class_list(name), (count, count))
            for i, (name, count) in enumerate(zip(names, counts, strict=True), start=1)
        )

    return build


def _whole(
    count: int | None = None, *, name: str | None = None, class_count: int | None = None
) -> Build:
    def build(given: Sequence[Classes]) -> tuple[Part, ...]:
        classes = given[0] if given else None if name is None else class_list(name)
        return (Part("all", classes, None if count is None else (count, count), class_count),)

    return build


def _halves_of_list(given: Sequence[Classes]) -> tuple[Part, ...]:
    return tuple(Part(f"draw {i}", c) for i, c in enumerate(text4vis_draws(given[0])))


def _base_and_novel(given: Sequence[Classes]) -> tuple[Part, ...]:
    return tuple(Part(n, c) for n, c in zip(("base", "novel"), given, strict=True))


def _of_both(
    name: str,
    definitions: tuple[str, str],
    needs: tuple[str, str],
    builds: tuple[Build, Build],
    *,
    lists: tuple[int, ...] = (1,),
) -> tuple[Protocol, ...]:
    """A protocol on UCF-101, and the same on HMDB-51."""
    return tuple(
        Protocol(
            name=name, dataset=dataset, definition=definition, needs=need, build=build, lists=lists
        )
        for dataset, definition, need, build in zip(
            (_UCF, _HMDB), definitions, needs, builds, strict=True
        )
    )


_UCF, _HMDB = "ucf101", "hmdb51"
_EP1 = "half of the classes, 10 draws of Open-VCLIP (seed 2023), all videos of those classes"
_EP3 = "all classes, the 3 official test splits"
_HALVES = "half of the classes, 10 draws of Text4Vis (seeds 0 to 9), all videos of those classes"
_SHOTS = "trained on K = 2, 4, 8 or 16 videos of each class; "
_ALL = "all videos: a folder of classes or a list"
_SPLIT_1 = "the videos of split 1: a list; or all videos, and --splits testTrainMulti_7030_splits"
_THREE = "3 lists, one for each split; or all videos, and --splits "
_ONE = "a list; or all videos, and --splits "
_SPLITS = ("ucfTrainTestlist", "testTrainMulti_7030_splits")
_ANY = "a folder of classes or a list; --classes FILE to choose among more labels than it has"

PROTOCOLS: tuple[Protocol, ...] = (
    *_of_both(
        "EP1",
        (_EP1, _EP1),
        (_ALL, _SPLIT_1),
        (
            _draws(_UCF, open_vclip_draws, (6483, 6696)),
            _draws(_HMDB, open_vclip_draws, (2500, 2500)),
        ),
    ),
    *_of_both(
        "EP2",
        ("all classes, all videos", "all classes, the videos that split 1 trains or tests on"),
        (_ALL, _SPLIT_1),
        (_whole(13320, name=_UCF), _whole(5100, name=_HMDB)),
    ),
    *_of_both(
        "EP3",
        (_EP3, _EP3),
        (_THREE + _SPLITS[0], _THREE + _SPLITS[1]),
        (_splits((_UCF,) * 3, (3783, 3734, 3696)), _splits((_HMDB,) * 3, (1530, 1530, 1530))),
        lists=(3,),
    ),
    *_of_both(
        "half-classes",
        (_HALVES, _HALVES),
        (_ALL, "all videos (Text4Vis takes 6,766): a folder of classes or a list"),
        (_draws(_UCF, text4vis_draws, None), _draws(_HMDB, text4vis_draws, None)),
    ),
    Protocol(
        name="half-classes",
        dataset="any",
        definition=_HALVES,
        needs="videos, and --classes FILE with all classes in their order (ActivityNet has 200)",
        build=_halves_of_list,
        class_files=(1, 1),
    ),
    Protocol(
        name="K600",
        dataset="kinetics600",
        definition="3 splits of 160 of the classes that Kinetics-600 added to Kinetics-400",
        needs="the validation videos of those classes: one list, or 3, one for each split; "
        "videos of other classes are left out",
        build=_splits([f"kinetics600_split{i}" for i in (1, 2, 3)], (7276, 7226, 7261)),
        lists=(1, 3),
        leaves_others_out=True,
    ),
    Protocol(
        name="base-to-novel",
        dataset="any",
        definition="trained on a few shots of the base classes; base videos among base classes, "
        "novel videos among novel classes, and their harmonic mean",
        needs="--classes BASE NOVEL, and one list of test videos, or one for each half",
        build=_base_and_novel,
        class_files=(2, 2),
        lists=(1, 2),
    ),
    Protocol(
        name="few-shot",
        dataset="any",
        definition=f"{_SHOTS}all classes",
        needs=_ANY,
        build=_whole(),
        class_files=(0, 1),
    ),
    *_of_both(
        "few-shot",
        (f"{_SHOTS}test videos of split 1",) * 2,
        (_ONE + _SPLITS[0], _ONE + _SPLITS[1]),
        (_whole(3783, name=_UCF), _whole(1530, name=_HMDB)),
    ),
    Protocol(
        name="MiT",
        dataset="moments-in-time",
        definition="all 339 classes, validation videos; FitCLIP: --templates none",
        needs="a folder of classes or a list; --classes moments_categories.txt",
        build=_whole(33900, class_count=339),
        class_files=(0, 1),
    ),
    Protocol(
        name="MSR-VTT",
        dataset="1k-a",
        definition="1,000 pairs: the video of each sentence, and the sentence of each video; "
        "R@1, R@5, R@10, median rank",
        needs="the folder of videos, and --captions MSRVTT_JSFUSION_test.csv; or, as FitCLIP, "
        "--captions MSR_VTT.json --only val_list_jsfusion.txt (first caption of each video)",
        build=_whole(1000),
        task="retrieval",
    ),
    Protocol(
        name="retrieval",
        dataset="any",
        definition="videos and one sentence each, in both directions",
        needs="a CSV with path,caption",
        build=_whole(),
        task="retrieval",
    ),
    Protocol(
        name="folder",
        dataset="any",
        definition="every video among all labels",
        needs=_ANY,
        build=_whole(),
        class_files=(0, 1),
    ),
)
