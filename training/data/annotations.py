"""Lists of videos: which files there are, and the words that belong to each.

Whatever the format, the result is `LabelledVideo`, with the label in words. Where a list numbers
its labels, the numbers are looked up once, in the file of labels that belongs to that very list,
and checked against the folders that the videos lie in; nothing after that knows a number. (HMDB's
lists number `kick` and `kick ball` in two ways; UCF's names come in three spellings.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.list_formats import Row, VideoListError, read_label_names, read_rows
from training.data.video_files import VideoFiles
from training.evaluate.class_lists import key

__all__ = ["LabelledVideo", "VideoListError", "classes_of", "read_video_list"]


@dataclass(frozen=True)
class LabelledVideo:
    """One video file and the words that belong to it.

    label: the class, None in lists that have none. caption: a sentence about it, None without.
    more_captions: further sentences about the same video.
    """

    path: Path
    label: str | None = None
    caption: str | None = None
    more_captions: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        """All sentences; empty without."""
        return (() if self.caption is None else (self.caption,)) + self.more_captions

    @property
    def class_name(self) -> str:
        """The label, where one is needed. Raises VideoListError for a video without."""
        if self.label is None:
            raise VideoListError(f"{self.path}: has no label, and one is needed here")
        return self.label


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """Where a list is and how it is read; a table of a configuration.

    path: a file or a folder, see `read_video_list`. root: the folder of the videos, where it is not
    that of the list. labels: names of the numbers that the list has for labels. split: rows to take
    of a list that names several.
    """

    path: Path
    root: Path | None = None
    labels: Path | None = None
    split: str | None = None

    def read(self, *, labelled: bool = True) -> list[LabelledVideo]:
        """The videos; as `read_video_list`."""
        return read_video_list(
            self.path, root=self.root, labels=self.labels, split=self.split, labelled=labelled
        )


DRAWN_FOLDER = Path("runs/motion-world/videos")
"""Where `python -m training draw` puts its sets, and the committed configurations look for them."""


def read_video_list(
    path: Path,
    *,
    root: Path | None = None,
    labels: Path | None = None,
    split: str | None = None,
    labelled: bool = True,
) -> list[LabelledVideo]:
    """Read a list of videos.

    path, by what is in it:

    * a folder: each folder in it is a class; without labels, every file in it is a video;
    * CSV with a head: ``path`` with ``label`` and ``caption`` or one of them; Kinetics'
      ``label,youtube_id,time_start,time_end,split``, for files named ``id_000010_000020`` or
      ``id``, in a folder of the class or not; WebVid's ``videoid,name,page_dir``;
    * CSV without one: a path and the number of a label;
    * JSON: a list of objects with ``path``, ``label``, ``caption`` (a text or several), or one
      object path -> label; JSON Lines;
    * text: ``path number-of-frames label-number`` or ``path label-number`` (Text4Vis, ViFi-CLIP),
      or a path alone.

    root: the folder that paths are relative to; None: the folder of the list. A path may lack its
    suffix or have another one than the file. A video whose file is not there keeps its place in the
    list: it counts as one that cannot be decoded.
    labels: CSV ``id,name`` or JSON ``{"0": name}``, needed where labels are numbers. split: the
    value of the column ``split`` to keep. labelled: whether every video must have a label.

    Raises VideoListError, which names file, line and value: nothing there, an unknown format, a
    missing column, an empty field, a number without a name, a folder that says another class.
    """
    if path.is_relative_to(DRAWN_FOLDER) and not path.exists():
        raise VideoListError(f"{path}: not drawn yet: run `python -m training draw` first")
    if path.is_dir():
        videos = _folder(path, labelled=labelled)
    else:
        names = None if labels is None else read_label_names(labels)
        rows = _of_split(read_rows(path, numbered=names is not None), split, where=path)
        files = VideoFiles(path.parent if root is None else root)
        videos = [_video(row, files, names, where=path, labels=labels) for row in rows]
    if not videos:
        raise VideoListError(f"{path}: holds no videos")
    if labelled:
        for video in videos:
            if video.label is None:
                raise VideoListError(f"{path}: {video.path.name} has no label, and all need one")
    return videos


def classes_of(videos: Iterable[LabelledVideo]) -> tuple[str, ...]:
    """The different labels, sorted by name. Raises VideoListError for a video without one."""
    return tuple(sorted({video.class_name for video in videos}))


def _folder(path: Path, *, labelled: bool) -> list[LabelledVideo]:
    folders = [each for each in _entries(path) if each.is_dir()]
    if folders:
        return [
            LabelledVideo(path=file, label=folder.name)
            for folder in folders
            for file in _entries(folder)
            if file.is_file()
        ]
    if labelled:
        raise VideoListError(f"{path}: holds no videos in folders, one for each class")
    return [LabelledVideo(path=file) for file in _entries(path) if file.is_file()]


def _entries(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if not each.name.startswith("."))


def _of_split(rows: Sequence[Row], split: str | None, *, where: Path) -> Sequence[Row]:
    if split is None:
        return rows
    kept = [row for row in rows if row.split == split]
    if not kept:
        known = sorted({row.split for row in rows if row.split is not None})
        there = f"there are {', '.join(known)}" if known else "the list names no splits"
        raise VideoListError(f"{where}: no rows of split {split!r}; {there}")
    return kept


def _video(
    row: Row,
    files: VideoFiles,
    names: dict[int, str] | None,
    *,
    where: Path,
    labels: Path | None,
) -> LabelledVideo:
    label = row.label
    if row.label_number is not None:
        if names is None:
            raise VideoListError(
                f"{where}, line {row.line}: the label {row.label_number} is a number; the file "
                "that names the numbers of this list is needed (CSV id,name)"
            )
        if row.label_number not in names:
            raise VideoListError(
                f"{where}, line {row.line}: label {row.label_number} is not in {labels}, which "
                f"names {len(names)}"
            )
        label = names[row.label_number]
        _require_same_class(row, label, names, where=where, labels=labels)
    caption, *more = row.captions or (None,)
    return LabelledVideo(
        path=files.find(row.files), label=label, caption=caption, more_captions=tuple(more)
    )


def _require_same_class(
    row: Row, label: str, names: dict[int, str], *, where: Path, labels: Path | None
) -> None:
    """A folder named like a class must be the class that the number means."""
    folder = Path(row.files[0]).parent.name
    if key(folder) == key(label) or not key(folder):
        return
    if key(folder) in {key(name) for name in names.values()}:
        raise VideoListError(
            f"{where}, line {row.line}: label {row.label_number} is {label!r} in {labels}, but the "
            f"video is in the folder {folder!r}: list and names do not belong together"
        )
