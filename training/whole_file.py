"""Text files that are whole whenever somebody reads them."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8 in one step: readers find the file before or this one, also after a
    kill. For what has to outlive the machine's own death, see `training.revision_folder.flush`.
    """
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
