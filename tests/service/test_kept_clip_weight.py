"""The kept λ: for the artefact it was chosen for, whole or not at all."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.kept_clip_weight import KeptClipWeight

REVISION = "0123456789ab"


@given(weight=st.floats(0, 1).map(lambda value: round(value, 4)))
def test_what_was_written_is_read(weight: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The last λ of each artefact comes back exactly; another artefact or revision has none."""
    kept = KeptClipWeight(tmp_path_factory.mktemp("kept") / "lambda.json")
    assert kept.read(name="demo", revision=REVISION) is None
    kept.write(0.5, name="demo", revision=REVISION)
    kept.write(weight, name="demo", revision=REVISION)
    kept.write(0.25, name="third", revision=REVISION)
    assert kept.read(name="demo", revision=REVISION) == weight
    assert kept.read(name="third", revision=REVISION) == 0.25
    assert kept.read(name="demo", revision="ba9876543210") is None
    assert kept.read(name="other", revision=REVISION) is None
    assert [path.name for path in kept.path.parent.iterdir()] == ["lambda.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"name": "demo", "revi',
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"lambdas": {"demo@0123456789ab": 2}}',
        b'{"lambdas": 5}',
        b'{"lambdas": null}',
        b'{"name": "demo", "revision": "0123456789ab"}',
        b'{"name": "demo", "revision": "0123456789ab", "lambda": 1.5}',
        b'{"name": "demo", "revision": "0123456789ab", "lambda": NaN}',
        b'{"name": "demo", "revision": "0123456789ab", "lambda": true}',
        b'{"name": "demo", "revision": "0123456789ab", "lambda": "0.5"}',
    ],
)
def test_a_damaged_file_is_warned_about_and_not_used(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The default is served, and the log names the file."""
    path = tmp_path / "lambda.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="vtag"):
        assert KeptClipWeight(path).read(name="demo", revision=REVISION) is None
    assert str(path) in caplog.text


def test_a_disk_that_refuses_leaves_the_old_choice(tmp_path: Path) -> None:
    """Writing raises, and what was kept before is still there."""
    kept = KeptClipWeight(tmp_path / "lambda.json")
    kept.write(0.5, name="demo", revision=REVISION)
    (tmp_path / ".lambda.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        kept.write(0.7, name="demo", revision=REVISION)
    assert kept.read(name="demo", revision=REVISION) == 0.5


def test_a_file_of_the_version_that_kept_one_is_read(tmp_path: Path) -> None:
    """An update forgets no choice; the next one is written beside it."""
    path = tmp_path / "lambda.json"
    path.write_text('{"name": "demo", "revision": "0123456789ab", "lambda": 0.75}')
    kept = KeptClipWeight(path)
    assert kept.read(name="demo", revision=REVISION) == 0.75
    kept.write(0.5, name="other", revision=REVISION)
    assert kept.read(name="demo", revision=REVISION) == 0.75


def test_the_file_stays_small(tmp_path: Path) -> None:
    """Of many artefacts the last hundred choices are kept."""
    kept = KeptClipWeight(tmp_path / "lambda.json")
    for number in range(150):
        kept.write(0.5, name=f"model-{number}", revision=REVISION)
    assert kept.read(name="model-49", revision=REVISION) is None
    assert kept.read(name="model-50", revision=REVISION) == 0.5
