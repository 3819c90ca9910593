"""Names that an artefact may have: the manifest's own rule, asked early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.videoclip.manifest import Manifest
from training.artefact_name import require_name
from training.errors import Refusal

RULE = TypeAdapter(Manifest.model_fields["name"].rebuild_annotation())


@given(st.text("aZ09._-/ \n", max_size=66))
def test_what_is_let_in_is_what_the_manifest_takes(name: str) -> None:
    """No more, or publishing ends in a stack trace; no less, or a good name is refused."""
    try:
        RULE.validate_python(name)
        good = True
    except ValidationError:
        good = False
    if good:
        require_name(name, where="name =")
    else:
        with pytest.raises(Refusal, match="1 to 64 lower-case letters"):
            require_name(name, where="name =")
