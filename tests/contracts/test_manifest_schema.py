"""The published schema of the manifest is the one the code checks."""

import json

from service.videoclip.manifest import Manifest
from tests.conftest import REPOSITORY


def test_schema_file_equals_the_model() -> None:
    """model_store/manifest.schema.json is what `make schema` writes."""
    published = json.loads((REPOSITORY / "model_store" / "manifest.schema.json").read_text())
    assert published == Manifest.model_json_schema(), "run `make schema`"
