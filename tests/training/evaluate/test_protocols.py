"""Protocols: the published halves come out, and every name leads to one definition."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from training.__main__ import main
from training.evaluate.class_lists import class_list
from training.evaluate.draws import open_vclip_draws, text4vis_draws
from training.evaluate.protocols import PROTOCOLS, Protocol, ProtocolError, find, of_dataset

# Draws that Open-VCLIP published (its lists ucf101_half_test and hmdb_half_test). UCF's third and
# sixth tell the data set's own order from a sorted one, in which Hammering comes after HammerThrow.
UCF_DRAW_2 = (
    "Apply Eye Makeup|Apply Lipstick|Archery|Baseball Pitch|Billiards|Blowing Candles|"
    "Body Weight Squats|Clean And Jerk|Cliff Diving|Cricket Shot|Diving|Drumming|"
    "Field Hockey Penalty|Floor Gymnastics|Golf Swing|Haircut|Hammering|Hammer Throw|"
    "Handstand Walking|Head Massage|High Jump|Horse Race|Hula Hoop|Ice Dancing|Javelin Throw|"
    "Jumping Jack|Knitting|Military Parade|Mixing|Nunchucks|Parallel Bars|Playing Daf|"
    "Playing Dhol|Playing Tabla|Pole Vault|Pommel Horse|Pull Ups|Punch|Push Ups|"
    "Rock Climbing Indoor|Rope Climbing|Salsa Spin|Shaving Beard|Skijet|Soccer Juggling|"
    "Still Rings|Sumo Wrestling|Tennis Swing|Volleyball Spiking|Wall Pushups"
)
UCF_DRAW_5 = (
    "Apply Lipstick|Archery|Baby Crawling|Balance Beam|Baseball Pitch|Basketball Dunk|Biking|"
    "Blow Dry Hair|Blowing Candles|Boxing Speed Bag|Brushing Teeth|Clean And Jerk|Cliff Diving|"
    "Cutting In Kitchen|Field Hockey Penalty|Frisbee Catch|Front Crawl|Golf Swing|Haircut|"
    "Hammer Throw|Handstand Pushups|Head Massage|High Jump|Horse Riding|Javelin Throw|"
    "Juggling Balls|Jump Rope|Long Jump|Military Parade|Mixing|Nunchucks|Parallel Bars|"
    "Playing Dhol|Playing Guitar|Playing Piano|Playing Violin|Rock Climbing Indoor|Rowing|"
    "Salsa Spin|Shaving Beard|Shotput|Skiing|Soccer Penalty|Surfing|Swing|Tai Chi|Tennis Swing|"
    "Throw Discus|Writing On Board|Yoyo"
)
HMDB_DRAW_0 = (
    "brush hair|chew|climb|draw sword|dribble|drink|fall floor|golf|handstand|hit|hug|laugh|"
    "pullup|punch|pushup|ride bike|ride horse|run|situp|somersault|stand|swing baseball|talk|"
    "throw|turn"
)
HMDB_DRAW_9 = (
    "cartwheel|clap|climb|dive|fall floor|fencing|handstand|hit|hug|kick|kiss|laugh|pullup|punch|"
    "push|pushup|ride bike|ride horse|shoot bow|situp|sword|sword exercise|turn|walk|wave"
)


@pytest.mark.parametrize(
    ("dataset", "published"),
    [
        ("ucf101", {2: UCF_DRAW_2, 5: UCF_DRAW_5}),
        ("hmdb51", {0: HMDB_DRAW_0, 9: HMDB_DRAW_9}),
    ],
)
def test_the_command_prints_the_published_draws(
    dataset: str, published: dict[int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`protocols EP1 --dataset … --json` prints nothing but the ten draws."""
    assert main(["protocols", "EP1", "--dataset", dataset, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["draws"]
    assert [len(draw) for draw in printed["draws"]] == [len(class_list(dataset)) // 2] * 10
    for index, names in published.items():
        assert "|".join(printed["draws"][index]) == names


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    """The global generators are neither read nor moved."""
    random.seed(1)
    state = random.getstate()
    first = open_vclip_draws(class_list("ucf101"))
    assert random.getstate() == state
    random.random()
    assert open_vclip_draws(class_list("ucf101")) == first


@given(count=st.integers(2, 120))
def test_a_draw_is_half_of_the_classes_in_their_order(count: int) -> None:
    """No class twice, none invented, rounded down."""
    classes = [f"{i:03}" for i in range(count)]
    for draws in (open_vclip_draws(classes), text4vis_draws(classes)):
        assert len(draws) == 10
        for draw in draws:
            assert len(draw) == count // 2
            assert list(draw) == sorted(set(draw))
            assert set(draw) <= set(classes)


def test_text4vis_draws_are_numpys() -> None:
    """np.random.seed(s) and permutation(C)[:C//2], for s = 0 to 9."""
    classes = class_list("hmdb51")
    np.random.seed(7)
    expected = {classes[i] for i in np.random.permutation(51)[:25]}
    assert set(text4vis_draws(classes)[7]) == expected


def test_carried_lists_are_those_of_the_authors(shared_data: Callable[[str], Path]) -> None:
    """Names and order equal the published lists, but for spaces and case."""

    def squeezed(names: list[str]) -> list[str]:
        return [name.replace(" ", "").casefold() for name in names]

    def column(path: Path) -> list[str]:
        return [line.split(",", 1)[1] for line in path.read_text().splitlines()[1:]]

    published = shared_data("labels") / "text4vis"
    assert squeezed(list(class_list("ucf101"))) == squeezed(column(published / "ucf_labels.csv"))
    assert list(class_list("hmdb51")) == column(published / "hmdb51_labels.csv")
    for i in (1, 2, 3):
        names = column(published / "k600" / f"k160_labels_split{i}.csv")
        assert list(class_list(f"kinetics600_split{i}")) == names


def test_every_protocol_has_one_name_and_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With version, definition, and the number of videos where the papers give one."""
    titles = [p.title for p in PROTOCOLS]
    assert len(set(titles)) == len(titles)
    assert main(["protocols"]) == 0
    printed = capsys.readouterr().out
    for p in PROTOCOLS:
        assert f"{p.title}\n    {p.definition}\n" in printed
    assert "videos: 3,783 / 3,734 / 3,696" in printed
    assert "videos: 6,483 to 6,696" in printed
    assert main(["protocols", "--json"]) == 0
    assert [p["name"] for p in json.loads(capsys.readouterr().out)] == [p.name for p in PROTOCOLS]
    assert main(["protocols", "--dataset", "HMDB51"]) == 0
    assert "ucf101" not in capsys.readouterr().out
    assert main(["protocols", "--dataset", "nowhere"]) == 2
    assert "--dataset nowhere: one of" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.title)
def test_each_protocol_can_be_shown(protocol: Protocol, capsys: pytest.CaptureFixture[str]) -> None:
    """With the classes of its parts, where they do not come from the user's files."""
    assert main(["protocols", protocol.name.lower(), "--dataset", protocol.dataset]) == 0
    printed = capsys.readouterr().out
    assert protocol.definition in printed
    parts = () if protocol.class_files[0] else protocol.parts()
    assert all(f"\n{part.name}: " in printed for part in parts)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: find("EP4", None), "protocol 'EP4': unknown; known are EP1, EP2"),
        (
            lambda: find("ep1", None),
            "protocol EP1: of which data set; --dataset is one of ucf101, hmdb51",
        ),
        (lambda: find("EP1", "kinetics"), "not for --dataset kinetics; --dataset is one of ucf101"),
        (lambda: of_dataset("UCF"), "--dataset UCF: one of ucf101, hmdb51, any, kinetics600"),
        (lambda: find("base-to-novel", None).parts([("a",)]), "1 files with classes, 2 wanted"),
    ],
)
def test_what_is_no_protocol_is_one_line(ask: Callable[[], object], message: str) -> None:
    """It names what was asked and what there is."""
    with pytest.raises(ProtocolError, match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_the_class_lists_travel_with_the_package() -> None:
    """Each list that a protocol names is a file beside the code."""
    folder = REPOSITORY / "training" / "evaluate" / "class_lists"
    assert {path.name for path in folder.glob("*.txt")} == {
        "ucf101.txt",
        "hmdb51.txt",
        *(f"kinetics600_split{i}.txt" for i in (1, 2, 3)),
    }
