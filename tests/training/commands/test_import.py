"""The help of `import`: documentation that names what each format does, and nothing else."""

import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from training.command_line import parser
from training.importers import FORMATS


def help_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `python -m training … --help` prints."""
    with pytest.raises(SystemExit) as end:
        parser().parse_args([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_command_knows_the_formats_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every importer has its help, and every help its importer."""
    text = help_of("import", capsys=capsys)
    listed = re.findall(r"^    (\w+)\b", text.partition("formats:")[2], re.MULTILINE)
    assert [name for name in listed if name != "FORMAT"] == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_each_formats_help_says_what_is_read_and_what_becomes_of_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layout, video, text, λ and every option; lines fit a terminal."""
    text = help_of("import", name, capsys=capsys)
    for part in ("Read:", "Video:", "Text:", "λ:", "--clip CLIP", "--video VIDEO", "--store STORE"):
        assert part in text
    assert ("--views" in text) == (name == "open_vclip")
    assert ("--temporal" in text) == (name == "plain_clip")
    assert max(len(line) for line in text.splitlines()) <= 85


def test_help_needs_no_torch() -> None:
    """It is there at once: what a command needs is imported when it runs."""
    code = (
        "import sys\n"
        "from training.command_line import parser\n"
        "parser()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
