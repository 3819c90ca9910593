"""What several tests of the training begin with, made once."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.videoclip.tokenizing import Tokenizer, build_tokenizer_json

if TYPE_CHECKING:
    from training.models.network import VideoCLIP


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact that runs begin with."""
    from tests.training.tiny_run import write_start

    return write_start(tmp_path_factory.mktemp("start") / "artefact")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of videos, one of which is none."""
    from tests.training.tiny_run import draw_videos

    return draw_videos(tmp_path_factory.mktemp("videos"), count=8, broken=1)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tiny networks' tokenizer."""
    from tests.training.tiny import ARCHITECTURE, MERGES

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(build_tokenizer_json(MERGES), encoding="utf-8")
    return Tokenizer(path, ARCHITECTURE["text_cfg"]["context_length"])


@pytest.fixture
def quick_export(tiny_artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graphs from an artefact of the same architecture: exporting takes ten seconds."""
    from tests.training.tiny import FRAMES
    from training import artefact

    (source,) = tiny_artefact.glob("tiny/*")

    def copy(network: "VideoCLIP", folder: Path, *, frames_per_clip: int) -> None:
        assert (frames_per_clip, network.image_size) == (FRAMES, 40)
        for path in source.glob("*_encoder.*"):
            shutil.copy(path, folder)

    monkeypatch.setattr(artefact, "export", copy)
