"""The operator's drill: whatever is broken shows, fires its alert, and clears."""

from pathlib import Path

import pytest

from tests.operations import drill
from tests.operations.faults import FAULTS
from tests.operations.pictures import PICTURES
from tests.operations.programs import program
from tests.operations.questions import panel_called
from tests.operations.rules import alerts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_fault_shows_fires_and_clears(tmp_path: Path) -> None:
    """Seven of them, one after the other; and the boards' pictures of it are drawn."""
    program("prometheus")
    outcomes = drill.run(FAULTS, pictures=tmp_path)
    for each in outcomes:
        assert None not in (each.shown, each.fired, each.cleared), each.row()
    assert {each.fault.name for each in outcomes} | {"disk full"} == {
        fault.name for fault in FAULTS
    }
    for name in PICTURES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_faults_and_pictures_name_what_there_is() -> None:
    """Alerts, and panels of boards."""
    for fault in FAULTS:
        assert panel_called(alerts()[fault.alert]["annotations"]["panel"]).queries
    for places in PICTURES.values():
        for place in places:
            assert panel_called(place).queries


def test_an_unknown_fault_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are; nothing is started."""
    assert drill.main(["--only", "an earthquake"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("drill: --only 'an earthquake': one of overload, ")
    assert line.count("\n") == 1
