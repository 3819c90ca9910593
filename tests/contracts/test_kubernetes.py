"""The manifests of Kubernetes are valid, fit together, and fit the service's life."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.metrics import Metrics
from service.routes.gate import PUBLIC
from service.settings import Settings, variables
from service.settings_secrets import file_variable, secret_names
from tests.compose.compose_file import read_compose
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
# Of the Prometheus operator: no schema of it comes with Kubernetes.
WITHOUT_SCHEMA = {"ServiceMonitor"}


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", FOLDER / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns of what it will not take much longer"
    return list(yaml.safe_load_all(done.stdout))


def one(overlay: str, kind: str) -> dict[str, Any]:
    """The one resource of a kind."""
    [found] = [resource for resource in built(overlay) if resource["kind"] == kind]
    return found


def pod(overlay: str) -> dict[str, Any]:
    """The template of the deployment's pods."""
    template: dict[str, Any] = one(overlay, "Deployment")["spec"]["template"]
    return template


def container(overlay: str) -> dict[str, Any]:
    """The only container of a pod."""
    [found] = pod(overlay)["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_follow_the_schemas(overlay: str) -> None:
    """Strictly, of Kubernetes 1.37: an unknown field is a mistake."""
    kinds = {resource["kind"] for resource in built(overlay)}
    assert kinds >= {
        *("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"),
        *("NetworkPolicy", "ServiceMonitor", "ConfigMap", "ServiceAccount", "Namespace"),
    }
    for resource in built(overlay):
        if resource["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(resource, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_repository(overlay: str) -> None:
    """Secrets are named and never made; those the service reads are files, not variables."""
    assert "Secret" not in {resource["kind"] for resource in built(overlay)}
    settings = one(overlay, "ConfigMap")["data"]
    secrets = {variables(name)[0] for name in secret_names(Settings.model_fields)}
    assert secrets & set(settings) == set()
    mounts = {mount["name"]: mount["mountPath"] for mount in container(overlay)["volumeMounts"]}
    for variable in ("VTAG_API_KEYS_FILE", "VTAG_DATABASE_URL_FILE", "VTAG_REDIS_URL_FILE"):
        assert Path(settings[variable]).parent == Path(mounts["secrets"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_those_of_the_service(overlay: str) -> None:
    """Every VTAG_ variable is a setting, and Kubernetes adds none of its own."""
    known = {variable for name in Settings.model_fields for variable in variables(name)}
    known |= {file_variable(variables(name)[0]) for name in secret_names(Settings.model_fields)}
    named = set(one(overlay, "ConfigMap")["data"])
    named |= {variable["name"] for variable in container(overlay)["env"]}
    assert named - known == set()
    assert pod(overlay)["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_can_do_little(overlay: str) -> None:
    """What the restricted profile of pod security asks for, and a root that is read-only."""
    spec, inner = pod(overlay)["spec"], container(overlay)["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["capabilities"] == {"drop": ["ALL"]}
    labels = one(overlay, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_each_is_for(overlay: str) -> None:
    """Start-up, progress and the event loop, on paths that need no key."""
    found = container(overlay)
    probes = {kind: found[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert paths == {
        "startup": "/startupz",
        "readiness": "/readyz?for=tagging",
        "liveness": "/healthz",
    }
    assert {path.partition("?")[0] for path in paths.values()} == PUBLIC
    for probe in probes.values():
        assert probe["httpGet"]["port"] in {port["name"] for port in found["ports"]}
    assert probes["readiness"]["timeoutSeconds"] > 2, "the index is given two seconds"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_grace_is_longer_than_leaving(overlay: str) -> None:
    """preStop, draining and the longest request end before Kubernetes kills; pods leave unready."""
    settings = one(overlay, "ConfigMap")["data"]
    drain = float(settings["VTAG_DRAIN_SECONDS"])
    shutdown = float(settings["VTAG_SHUTDOWN_SECONDS"])
    pause = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(overlay)["spec"]["terminationGracePeriodSeconds"] >= pause + drain + shutdown + 10
    assert shutdown > float(settings["VTAG_REQUEST_TIMEOUT_SECONDS"])
    readiness = container(overlay)["readinessProbe"]
    assert drain >= readiness["periodSeconds"], "balancers that ask /readyz see that it leaves"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    """Selectors find the pods; ports, claims, settings and targets exist."""
    labels = pod(overlay)["metadata"]["labels"].items()
    deployment, service = one(overlay, "Deployment"), one(overlay, "Service")
    monitor, budget = one(overlay, "ServiceMonitor"), one(overlay, "PodDisruptionBudget")
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    ports = {port["name"] for port in container(overlay)["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    [ingress] = one(overlay, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in ingress["ports"]} <= ports
    target = one(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "an apply would undo the autoscaler"
    volumes = {volume["name"]: volume for volume in pod(overlay)["spec"]["volumes"]}
    assert {mount["name"] for mount in container(overlay)["volumeMounts"]} == set(volumes)
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == one(overlay, "PersistentVolumeClaim")["metadata"]["name"]
    [settings, bucket] = container(overlay)["envFrom"]
    assert settings["configMapRef"]["name"] == one(overlay, "ConfigMap")["metadata"]["name"]
    assert bucket["secretRef"]["optional"] is True
    account = one(overlay, "ServiceAccount")["metadata"]["name"]
    assert pod(overlay)["spec"]["serviceAccountName"] == account


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_those_that_compose_builds(overlay: str) -> None:
    """One Dockerfile makes both; a tag with a version, never latest."""
    service = "vtag" if overlay == "cpu" else "vtag-gpu"
    assert container(overlay)["image"] == read_compose()["services"][service]["image"]


def test_it_scales_by_what_waits() -> None:
    """The autoscaler asks for figures that the adapter makes of metrics that the service has."""
    scaling = one("cpu", "HorizontalPodAutoscaler")["spec"]["metrics"]
    asked = {metric["pods"]["metric"]["name"] for metric in scaling}
    rules = yaml.safe_load((FOLDER / "prometheus_adapter.yaml").read_text())["rules"]["custom"]
    assert asked == {rule["name"]["as"] for rule in rules}
    exported = {family.name for family in Metrics().registry.collect()}
    watched = (REPOSITORY / "service" / "engine.py").read_text()
    for rule in rules:
        [name] = re.findall(r"^vtag_\w+", rule["seriesQuery"])
        assert name.removesuffix("_bucket") in exported or f'"{name}"' in watched


def test_the_gpu_overlay_gives_each_pod_one_device() -> None:
    """And no second pod beside the first during a roll-out: there may be no second device."""
    assert one("gpu", "ConfigMap")["data"]["VTAG_DEVICE"] == "cuda"
    assert "VTAG_DEVICE" not in one("cpu", "ConfigMap")["data"]
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    rolling = one("gpu", "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    rolling = one("cpu", "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
