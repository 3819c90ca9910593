"""What is written down beside every result."""

import json
import platform

import pytest
import torch

from training import precision
from training.provenance import environment


def test_versions_machine_and_number_format_are_named() -> None:
    """Enough to tell why two runs of one configuration differ; and it fits into JSON."""
    found = environment("cpu", precision="fp32")
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["platform"] == platform.platform()
    assert found["precision"] == "fp32"
    assert found["device"].startswith("cpu: ")
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_written_as_what_it_meant(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    """The word "auto" would say nothing on another machine."""
    monkeypatch.setattr(precision, "_has_fast_bf16", lambda _: fast)
    assert environment("cpu", precision="auto")["precision"] == expected
