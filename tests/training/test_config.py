"""Typed TOML: what fits becomes a dataclass, what does not is one clear line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from training.__main__ import main
from training.config import ConfigError, load_config
from training.evaluate.inputs import EvaluationList
from training.evaluate.protocols import find
from training.run_config import RunConfig
from training.schedule import learning_rate
from training.step_config import RegularisationConfig


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


def committed() -> list[Path]:
    """The configurations of runs that users copy."""
    folder = Path(__file__).parent.parent.parent / "training" / "configs"
    others = ("demo", "reproduction")  # have schemas and tests of their own
    return sorted(path for path in folder.rglob("*.toml") if not path.stem.startswith(others))


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.stem)
def test_committed_configurations_load(path: Path) -> None:
    """None has an unknown key, and what λ is chosen by is measured."""
    config = load_config(path, RunConfig)
    if config.select is not None:
        assert config.select.sets() <= set(config.data.evaluation)
    free_text = not path.stem.endswith(("_lda", "_random"))  # the others' rows are not texts
    assert (config.publish is not None) == free_text


@pytest.mark.parametrize(
    "path", [p for p in committed() if "_vit_" in p.stem], ids=lambda path: path.stem
)
def test_committed_configurations_measure_ucf101_and_hmdb51_by_a_protocol(path: Path) -> None:
    """Else labels would reach the text encoder as a list happens to spell them."""
    evaluation = load_config(path, RunConfig).data.evaluation
    assert evaluation
    for name in set(evaluation) & {"ucf101", "hmdb51"}:
        given = evaluation[name]
        assert isinstance(given, EvaluationList), name
        # FitCLIP brings a file of its own spellings; whatever is read by words is the protocol's.
        assert given.protocol != "folder" or given.classes, name
        protocol = find(given.protocol, given.dataset)
        assert len(given.videos) in protocol.lists
        assert protocol.class_files[0] <= len(given.classes) <= protocol.class_files[1]
        assert protocol.dataset in (name, "any")
        if path.stem.startswith("open_vclip"):
            assert (protocol.name, protocol.dataset, given.spelling) == ("EP2", name, "protocol")


@pytest.mark.parametrize(("size", "clip_weight"), [("b32", 0.5), ("b16", 0.5), ("l14", 0.6)])
def test_open_vclip_is_configured_as_released(size: str, clip_weight: float) -> None:
    """The values of the released scripts, and λ of the released models; no figures are borrowed."""
    (path,) = (path for path in committed() if path.stem == f"open_vclip_vit_{size}")
    config = load_config(path, RunConfig)
    assert config.regularisation == RegularisationConfig(
        interpolation_coefficient=0.5, interpolation_max=0.6, snapshots=21
    )
    optimisation = config.optimisation
    assert (optimisation.epochs, optimisation.batch_size) == (22, 64)
    assert optimisation.gradient_checkpointing == (size == "l14")
    assert learning_rate(2 / 22, **optimisation.schedule_arguments()) == pytest.approx(3.33e-6)
    assert config.settings.clip_weight == clip_weight
    assert config.clips.sampling(config.frames).views == 3
    assert config.data.sampling == "strided"
    text = path.read_text(encoding="utf-8")
    assert "What still differs" in text
    assert "strided_exact" in text.partition("\nrun =")[0]
    assert "83.5" not in text


def test_a_run_has_one_recipe(tmp_path: Path) -> None:
    """None or two tables of recipes are refused, and a recipe's own keys are checked."""
    common = 'run = "r"\nclip = "c"\n[data]\ntrain = "t"\n[optimisation]\nsteps = 1\n'
    for tables, message in (
        ("", "found none"),
        ("[open_vclip]\n[fitclip]\n", "found open_vclip and fitclip"),
        ("[open_vclip]\nspeed = 1\n", r"unknown key open_vclip\.speed"),
        ("[open_vclip]\nclip_weight = 2\n", "open_vclip: clip_weight = 2"),
        ("[open_vclip]\n[regularisation]\nsnapshots = -1\n", "regularisation: snapshots = -1"),
        ("[open_vclip]\n[clips]\nviews = 3\n", "clips: .*has one view"),
    ):
        path = tmp_path / "run.toml"
        path.write_text(common + tables, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_config(path, RunConfig)


def test_a_wrong_key_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line it is one line on standard error."""
    path = tmp_path / "run.toml"
    path.write_text("speed = 1\n")
    assert main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown key speed" in error
