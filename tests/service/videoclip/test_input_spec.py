"""What a manifest says of frames and pixels, and that older manifests keep their meaning."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.videoclip.input_spec import Preprocessing, Sampling
from service.videoclip.manifest import load_manifest, revision_of
from tests.conftest import REPOSITORY

GREY: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_the_committed_models_revision_is_still_its_own() -> None:
    """A revision that was published before fields were added is computed as it was."""
    (folder,) = (REPOSITORY / "model_store" / "demo").iterdir()
    manifest = load_manifest(folder)
    found = revision_of(
        manifest.files,
        sampling=manifest.sampling,
        preprocessing=manifest.preprocessing,
        pooling=manifest.pooling,
    )
    assert found == manifest.revision == folder.name


def test_a_field_is_not_written_while_it_has_its_default() -> None:
    """A service that does not know `resize_size` reads every manifest that does not need it."""
    assert "resize_size" not in Preprocessing(image_size=8, **GREY).model_dump(mode="json")
    larger = Preprocessing(image_size=8, resize_size=9, **GREY)
    assert Preprocessing.model_validate_json(larger.model_dump_json()) == larger


@pytest.mark.parametrize(
    "fields",
    [{"resize_size": 9}, {"interpolation": "bilinear"}, {"resize_size": 10}],
)
def test_what_changes_pixels_changes_the_revision(fields: dict[str, Any]) -> None:
    """Vectors of two ways to resize are never compared."""
    sampling = Sampling(frames=2)
    revisions = {
        revision_of({}, sampling=sampling, preprocessing=preprocessing, pooling="x")
        for preprocessing in (
            Preprocessing(image_size=8, **GREY),
            Preprocessing.model_validate({"image_size": 8, **GREY, **fields}),
        )
    }
    assert len(revisions) == 2


@pytest.mark.parametrize("size", [7, 8])
def test_a_resize_to_the_crop_or_below_is_refused(size: int) -> None:
    """The crop would not fit, or one meaning would have two spellings and two revisions."""
    with pytest.raises(ValidationError, match=rf"resize_size: {size} is not above image_size, 8"):
        Preprocessing(image_size=8, resize_size=size, **GREY)


def test_segment_starts_have_one_view() -> None:
    """Several views are for strided clips only."""
    with pytest.raises(ValidationError, match="mode 'segment_starts' has one view"):
        Sampling(mode="segment_starts", frames=8, views=2)
