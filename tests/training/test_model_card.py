"""The figures of a model card claim no more than was measured."""

from service.videoclip.manifest import LambdaPoint, load_manifest
from tests.conftest import REPOSITORY
from training.model_card import figure, model_card, without_spread_of_one


def points(*spreads: float) -> list[LambdaPoint]:
    """A curve of one set with these spreads."""
    return [
        LambdaPoint(clip_weight=i / 10, scores={"a": 50.0}, spread={"a": spread})
        for i, spread in enumerate(spreads)
    ]


def test_one_seed_has_no_spread() -> None:
    """A 0 for want of a second seed is taken out, and none is printed."""
    curve = without_spread_of_one(points(0.0, 0.0))
    assert [point.spread for point in curve] == [{}, {}]
    assert figure(curve[0], "a") == "50.0"


def test_several_seeds_keep_theirs() -> None:
    """Also the 0 at CLIP itself, where all seeds agree."""
    curve = without_spread_of_one(points(1.25, 0.0))
    assert [figure(point, "a") for point in curve] == ["50.0 ± 1.2", "50.0 ± 0.0"]


def test_it_says_where_the_calibration_is() -> None:
    """A fit comes after publication: the card names the file and the key."""
    (artefact,) = (REPOSITORY / "model_store" / "demo").iterdir()
    text = model_card(load_manifest(artefact), text="A model.")
    section = text.partition("## Independent scores")[2]
    assert "`calibration`" in section
    assert "`manifest.json`" in section
