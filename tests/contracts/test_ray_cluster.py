"""The cluster file is one that Ray would take."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "deploy" / "ray" / "cluster.yaml"


def test_it_follows_the_schema_of_ray() -> None:
    """The schema that comes with Ray; no paths of anybody's machine, no reports to its makers."""
    ray = importlib.util.find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("Ray is not installed: pip install 'vtag[ray]'")
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = yaml.safe_load(CLUSTER.read_text())
    jsonschema.validate(cluster, schema)
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    started = [line for line in starts if " start " in line]
    assert len(started) == 2
    assert all("RAY_USAGE_STATS_ENABLED=0" in line for line in started)
