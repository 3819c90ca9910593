"""The compose file says what the compose specification and our own service understand."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, variables
from tests.compose.compose_file import COMPOSE, DOCKERFILE, image_environment, read_compose
from tests.conftest import REPOSITORY

SERVICES = ("vtag", "vtag-gpu", "postgres", "redis", "prometheus", "grafana")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file, anchors resolved, as it is without a variable."""
    return read_compose()


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


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_do_little(compose: dict[str, Any], name: str) -> None:
    """None is root, has capabilities, writes where no volume is, or fills the disk with logs."""
    service = compose["services"][name]
    assert re.fullmatch(r"[1-9][0-9]*:[0-9]+", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service["deploy"]["resources"]["limits"]["pids"] > 0
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_databases_are_on_a_network_of_their_own(compose: dict[str, Any]) -> None:
    """Postgres and Redis reach nothing outside, and nothing but the service reaches them."""
    assert compose["networks"]["store"]["internal"] is True
    on_store = {
        name for name, service in compose["services"].items() if "store" in service["networks"]
    }
    assert on_store == {"vtag", "vtag-gpu", "postgres", "redis"}
    for name in ("postgres", "redis"):
        assert list(compose["services"][name]["networks"]) == ["store"]
        assert "ports" not in compose["services"][name]


def test_the_gpu_takes_the_place_of_the_cpu(compose: dict[str, Any]) -> None:
    """Of the profile gpu, and the same but for the device, the image and its name there."""
    cpu, gpu = (dict(compose["services"][name]) for name in ("vtag", "vtag-gpu"))
    assert gpu.pop("profiles") == ["gpu"]
    assert gpu["networks"].pop("front") == {"aliases": ["vtag"]}
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu["environment"] == {**cpu["environment"], "VTAG_DEVICE": "cuda"}
    assert gpu["build"] == {**cpu["build"], "args": {"RUNTIME": "gpu"}}
    assert cpu["scale"] == "1"
    assert read_compose({"CPU_REPLICAS": "0"})["services"]["vtag"]["scale"] == "0"
    apart = {"environment", "build", "image", "scale", "networks", "deploy"}
    same = {key: value for key, value in cpu.items() if key not in apart}
    assert same == {key: value for key, value in gpu.items() if key not in apart}


def test_the_limits_are_known_to_the_service(compose: dict[str, Any]) -> None:
    """It counts the cores of the host; told of the limit it starts no more workers than that."""
    for limit in ("2", "7"):
        service = read_compose({"CPU_LIMIT": limit})["services"]["vtag"]
        assert service["deploy"]["resources"]["limits"]["cpus"] == limit
        assert service["environment"]["VTAG_DECODE_WORKERS"] == limit
        assert service["environment"]["VTAG_ENCODER_THREADS"] == limit
    grace = float(compose["services"]["vtag"]["stop_grace_period"].removesuffix("s"))
    fields = Settings.model_fields
    assert grace > fields["drain_seconds"].default + fields["shutdown_seconds"].default


def test_the_example_names_every_variable_with_its_default() -> None:
    """.env.example is complete, and copied as it is it changes nothing."""
    example = (REPOSITORY / ".env.example").read_text()
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert COMPOSE.read_text().count("${") == len(re.findall(r"\$\{\w+:-", COMPOSE.read_text()))
    for name, default in used.items():
        line = "#CPU_REPLICAS=0" if name == "CPU_REPLICAS" else f"{name}={default}"
        assert re.search(rf"^#?{re.escape(line.removeprefix('#'))}$", example, re.MULTILINE), name
    assert "#COMPOSE_PROFILES=gpu" in example


@pytest.mark.parametrize("dockerfile", [DOCKERFILE])
def test_dockerfiles_pass_hadolint(dockerfile: Path) -> None:
    """The linter has nothing to say."""
    hadolint = Path(sys.executable).parent / "hadolint"
    checked = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_small_pinned_and_not_root() -> None:
    """Two stages; packages by hash, none of torch; a number as user; the store that is mounted."""
    text = DOCKERFILE.read_text()
    assert len(re.findall("^FROM ", text, re.MULTILINE)) == 2
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", text, re.MULTILINE)
    for line in re.findall(r"pip [^&\n]*install [^&\n]*", text):
        assert "--require-hashes" in line or "--no-index" in line, line
    assert re.search(r"^USER [1-9][0-9]*:[0-9]+$", text, re.MULTILINE)
    assert image_environment()["VTAG_MODEL_STORE"] == "/models"
    for runtime in ("cpu", "gpu"):
        requirements = (DOCKERFILE.parent / f"requirements-{runtime}.txt").read_text()
        assert not re.search(r"^torch", requirements, re.MULTILINE)


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    """Nothing without authentication is reachable from other machines."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_services_environment_is_known_to_the_service(compose: dict[str, Any]) -> None:
    """Every VTAG_ variable in the compose file and the Dockerfile is a setting."""
    used = set(compose["services"]["vtag"]["environment"])
    used |= set(compose["services"]["vtag-gpu"]["environment"])
    used |= {name for name in image_environment() if name.startswith("VTAG_")}
    assert len(re.findall(r"\bVTAG_\w+=", DOCKERFILE.read_text())) == 4
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
