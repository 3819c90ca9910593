"""The compose file says what the compose specification and our own service understand."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from service.settings import Settings, variables
from tests.conftest import REPOSITORY

COMPOSE = REPOSITORY / "docker-compose.yml"
SERVICES = ("vtag", "postgres", "redis", "prometheus", "grafana")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file, anchors resolved."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def test_compose_file_follows_the_specification() -> None:
    """The schema of the compose specification accepts the file."""
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(COMPOSE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_limited_and_restarted(compose: dict[str, Any], name: str) -> None:
    """Each service has a health check, limits, a restart policy and a pinned image."""
    service = compose["services"][name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert re.fullmatch(r"[a-z/]+:v?[0-9][\w.-]*", service["image"])


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    """Nothing without authentication is reachable from other machines."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_services_environment_is_known_to_the_service(compose: dict[str, Any]) -> None:
    """Every VTAG_ variable in the compose file and the Dockerfile is a setting."""
    dockerfile = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()
    used = set(compose["services"]["vtag"]["environment"])
    used |= set(re.findall(r"^\s+(VTAG_\w+)=", dockerfile, re.MULTILINE))
    known = {variable for field in Settings.model_fields for variable in variables(field)}
    assert used
    assert used <= known


def test_named_volumes_are_declared_and_mounted_files_exist(compose: dict[str, Any]) -> None:
    """Whatever is mounted is a declared volume or a path of the repository."""
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (REPOSITORY / source).exists(), f"{name} mounts {source}"
            else:
                assert source in compose["volumes"], f"{name} mounts {source}"


def test_prometheus_scrapes_and_grafana_asks_what_compose_starts(compose: dict[str, Any]) -> None:
    """The host names in the configurations are services of the compose file."""
    prometheus = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text())
    targets = {
        target
        for job in prometheus["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert f"vtag:{compose['services']['vtag']['environment']['VTAG_PORT']}" in targets
    datasources = REPOSITORY / "deploy/grafana/provisioning/datasources/prometheus.yml"
    urls = [source["url"] for source in yaml.safe_load(datasources.read_text())["datasources"]]
    assert urls == ["http://prometheus:9090"]
