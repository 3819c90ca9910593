"""The official split files of UCF-101 and HMDB-51, joined with the folder of videos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.annotations import LabelledVideo
from training.evaluate.class_lists import class_list, key
from training.evaluate.protocols import ProtocolError

_HMDB_TEST, _HMDB_TRAIN = "2", "1"


@dataclass(frozen=True)
class OfficialSplits:
    """tests: the test videos of each of the three splits. used: what split 1 trains or tests on."""

    tests: tuple[tuple[LabelledVideo, ...], ...]
    used: tuple[LabelledVideo, ...]


def read_official_splits(dataset: str, *, videos: Path, splits: Path) -> OfficialSplits:
    """Read ``ucfTrainTestlist`` (ucf101) or ``testTrainMulti_7030_splits`` (hmdb51).

    videos: a folder with one folder for each class. Videos are found by class and file name; the
    suffix may be another one than in the split files. Labels are the names of the class folders.
    Raises ProtocolError when a split file is missing or not understood, or names a video that is
    not there.
    """
    read = {"ucf101": _ucf101, "hmdb51": _hmdb51}.get(dataset)
    if read is None:
        raise ProtocolError(f"--splits {splits}: there are official split files for ucf101, hmdb51")
    known = _Videos(videos)
    tests, used = [], []
    for split in (1, 2, 3):
        entries = list(read(splits, split))
        tests.append(tuple(known.find(*name) for name, is_test in entries if is_test))
        if split == 1:
            used = [known.find(*name) for name, _ in entries]
    return OfficialSplits(tests=tuple(tests), used=tuple(used))


class _Videos:
    """The files of a folder of classes, by class and stem."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ProtocolError(f"{folder}: with --splits, a folder with one folder for each class")
        self._folder = folder
        self._files = {
            (key(own.name), file.stem.casefold()): LabelledVideo(path=file, label=own.name)
            for own in folder.iterdir()
            if own.is_dir() and not own.name.startswith(".")
            for file in own.iterdir()
            if file.is_file() and not file.name.startswith(".")
        }

    def find(self, label: str, name: str) -> LabelledVideo:
        try:
            return self._files[key(label), Path(name).stem.casefold()]
        except KeyError:
            raise ProtocolError(
                f"{self._folder}: no {label}/{name}, which the split files name"
            ) from None


Entry = tuple[tuple[str, str], bool]  # (class, file name), whether it is a test video


def _ucf101(folder: Path, split: int) -> Iterator[Entry]:
    for file, is_test in ((f"trainlist0{split}.txt", False), (f"testlist0{split}.txt", True)):
        for number, line in enumerate(_lines(folder / file), start=1):
            label, _, name = line.split(" ")[0].partition("/")
            if not name:
                raise ProtocolError(f"{folder / file}, line {number}: {line!r} is no class/video")
            yield (label, name), is_test


def _hmdb51(folder: Path, split: int) -> Iterator[Entry]:
    for label in class_list("hmdb51"):
        file = folder / f"{label.replace(' ', '_')}_test_split{split}.txt"
        for number, line in enumerate(_lines(file), start=1):
            name, _, flag = line.rpartition(" ")
            if not name or flag not in ("0", _HMDB_TRAIN, _HMDB_TEST):
                raise ProtocolError(f"{file}, line {number}: {line!r} is no video and 0, 1 or 2")
            if flag != "0":
                yield (label, name.strip()), flag == _HMDB_TEST


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ProtocolError(f"{path}: {reason}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
