"""Typed TOML: what fits becomes a dataclass, what does not is one clear line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from training.__main__ import main
from training.config import ConfigError, load_config
from training.run_config import RunConfig


@dataclass(frozen=True)
class Inner:
    """A nested table."""

    rate: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    """One of everything."""

    name: str
    inner: Inner
    path: Path = Path("x")
    count: int = 3
    on: bool = False
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    table: dict[str, float] = field(default_factory=dict)
    maybe: Inner | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count: {self.count} is negative")


GOOD = 'name = "n"\n[inner]\nrate = 2\n'


def load(tmp_path: Path, text: str) -> Outer:
    """Write and read."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path, Outer)


def test_values_take_their_types(tmp_path: Path) -> None:
    """Tables nest, lists become tuples, whole numbers become floats where floats are wanted."""
    text = (
        'name = "n"\npath = "a/b"\nsizes = [1, 2]\npair = [1, 2.5]\non = true\n'
        '[inner]\nrate = 2\nkind = "b"\n[table]\nx = 1\n[maybe]\nrate = 1.5\n'
    )
    assert load(tmp_path, text) == Outer(
        name="n",
        inner=Inner(rate=2.0, kind="b"),
        path=Path("a/b"),
        on=True,
        sizes=(1, 2),
        pair=(1.0, 2.5),
        table={"x": 1.0},
        maybe=Inner(rate=1.5),
    )
    assert load(tmp_path, GOOD).maybe is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "speed = 1\n", r"unknown key inner\.speed; known here: rate, kind"),
        ("speed = 1\n" + GOOD, "unknown key speed"),
        ('name = "n"\n', "missing key inner"),
        ('name = "n"\n[inner]\n', r"missing key inner\.rate"),
        ("name = 3\n[inner]\nrate = 2\n", "name = 3: expected a text"),
        ('name = "n"\n[inner]\nrate = "2"\n', r"inner\.rate = '2': expected a number"),
        (GOOD.replace("2", "true"), r"inner\.rate = True: expected a number"),
        ("count = 1.5\n" + GOOD, "count = 1.5: expected a whole number"),
        ("on = 1\n" + GOOD, "on = 1: expected true or false"),
        (GOOD + 'kind = "c"\n', r"inner\.kind = 'c': one of 'a', 'b'"),
        ('sizes = [1, "2"]\n' + GOOD, r"sizes\[1\] = '2'"),
        ("pair = [1]\n" + GOOD, "pair = .*: expected a list of 2"),
        ("maybe = 3\n" + GOOD, "maybe = 3: expected a table"),
        ("count = -1\n" + GOOD, "count: -1 is negative"),
        ("name = \n", "not TOML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the key, the value, and what is expected."""
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "config.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml", Outer)


def test_the_committed_configuration_loads() -> None:
    """The example that users copy has no key that is unknown."""
    folder = Path(__file__).parent.parent.parent / "training" / "configs"
    config = load_config(folder / "open_vclip_vit_b32.toml", RunConfig)
    assert config.open_vclip.interpolation_max == 0.6
    assert config.open_vclip.peak_learning_rate == 3.33e-6


def test_what_differs_from_the_paper_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a user looks: the configuration, its card, and the help; no figures are borrowed."""
    folder = Path(__file__).parent.parent.parent / "training" / "configs"
    config = load_config(folder / "open_vclip_vit_b32.toml", RunConfig)
    assert config.publish is not None
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    for text in (
        (folder / "open_vclip_vit_b32.toml").read_text(encoding="utf-8"),
        config.publish.card,
        capsys.readouterr().out,
    ):
        assert "released script" in text
        assert "crops" in text or "random crop" in text
        assert "79.5" not in text


def test_a_wrong_key_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line it is one line on standard error."""
    path = tmp_path / "run.toml"
    path.write_text("speed = 1\n")
    assert main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown key speed" in error
