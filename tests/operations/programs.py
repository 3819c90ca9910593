"""Programs of Prometheus that are no Python packages, and what to install for them."""

import shutil

import pytest


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: install the Debian package prometheus")
    return found
