"""Settings: everything from the environment, every mistake at once."""

import os
import re
from pathlib import Path

import pytest

from service.api_keys import new_key
from service.settings import Settings, SettingsError, load, variables
from service.settings_help import help_text


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("VTAG_", "OTEL_")) or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)


def test_defaults_need_nothing() -> None:
    """An empty environment gives a usable service on the loopback interface."""
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.data_dir == Path.cwd() / ".vtag"
    assert settings.database_url is None


def test_bare_host_and_port_count_and_the_prefixed_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """PORT is what platforms set; VTAG_PORT is more specific."""
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.setenv("HOST", "::1")
    assert (load().host, load().port) == ("::1", 9001)
    monkeypatch.setenv("VTAG_PORT", "9002")
    assert load().port == 9002


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("cpu,cpu", "cpu,cpu"),
        (" cuda:0, cuda:1", "cuda:0,cuda:1"),
        ("cuda,cuda:0", "cuda,cuda:0"),
        ("cpu,", "entry 2 is '': must be cpu, cuda or cuda:N (got 'cpu,')"),
        ("cuda:0,cuda:*", "entry 2 is 'cuda:*': must be cpu, cuda or cuda:N"),
        ("cpu,cuda:1", "devices of one list must be alike, not cpu beside cuda (got 'cpu,cuda:1')"),
        (",".join(["cpu"] * 17), "names 17 devices, must be at most 16"),
    ],
)
def test_several_devices_are_a_list_of_what_is_alike(
    words: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces are nothing; a mistake names the entry, the value and the limit."""
    monkeypatch.setenv("VTAG_DEVICE", words)
    if found.startswith("c"):
        assert load().device == found
    else:
        with pytest.raises(SettingsError, match=re.escape(f"VTAG_DEVICE: {found}")):
            load()


@pytest.mark.parametrize(
    ("word", "is_device"),
    [("cpu", True), ("cuda", True), ("cuda:3", True), ("tpu", False), ("cuda:", False),
     ("CUDA", False), ("cpu:0", False)],
)  # fmt: skip
def test_only_devices_that_can_be_are_taken(
    word: str, is_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that names no device is refused by name, not ignored."""
    monkeypatch.setenv("VTAG_DEVICE", word)
    if is_device:
        assert load().device == word
    else:
        with pytest.raises(SettingsError, match="VTAG_DEVICE: must be cpu, cuda or cuda:N"):
            load()


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://collector:4318", None),
        ("https://collector.example/otlp", None),
        ("collector:4318", "must be http(s)://host:port"),
        ("http://:4318", "must be http(s)://host:port"),
        ("http://collector:port", "must be http(s)://host:port"),
        ("https://me:hunter2@collector:4318", "without credentials or a query"),
        ("https://collector:4318/?key=hunter2", "without credentials or a query"),
    ],
)
@pytest.mark.parametrize("name", ["VTAG_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_collector_is_named_by_an_address_without_secrets(
    name: str, endpoint: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, or OpenTelemetry's own variable; a mistake names it and does not repeat its value."""
    monkeypatch.setenv(name, endpoint)
    if problem is None:
        assert load().otlp_endpoint == endpoint
        return
    with pytest.raises(SettingsError, match=re.escape(problem)) as caught:
        load()
    [line] = caught.value.lines
    assert line.startswith(f"{name}: ")
    assert "hunter2" not in line


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`VTAG_REDIS_URL= make serve` means no Redis."""
    monkeypatch.setenv("VTAG_REDIS_URL", "")
    assert load().redis_url is None


def test_all_mistakes_are_told_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, naming the variable; what may hold a password is not repeated."""
    for name, value in {
        "VTAG_PORT": "many",
        "VTAG_MAX_LABELS": "0",
        "VTAG_SEGMENT_SECONDS": "nan",
        "VTAG_RUNTIME": "tensorrt",
        "VTAG_DATABASE_URL": "mysql://me:hunter2@there/db",
        "VTAG_VECTOR_URL": "milvus://me:hunter2@there",
        "VTAG_VECTOR_TOKEN_FILE": "/there/is/none",
        "VTAG_MAX_LABLES": "10",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    lines = caught.value.lines
    assert sorted(line.split(":")[0] for line in lines) == [
        "VTAG_DATABASE_URL",
        "VTAG_MAX_LABELS",
        "VTAG_MAX_LABLES",
        "VTAG_PORT",
        "VTAG_RUNTIME",
        "VTAG_SEGMENT_SECONDS",
        "VTAG_VECTOR_TOKEN_FILE",
        "VTAG_VECTOR_URL",
    ]
    assert not any("hunter2" in line or "\n" in line for line in lines)


def test_variables_of_the_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """VTAG_TEST_DATA may be set while the service runs."""
    monkeypatch.setenv("VTAG_TEST_DATA", "/data")
    load()


def test_help_names_every_setting_with_its_default() -> None:
    """The help is made from the fields, so it cannot fall behind."""
    text = help_text()
    for name in Settings.model_fields:
        assert f"{' or '.join(variables(name))} = " in text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "vtag.example.org"])  # noqa: S104
def test_a_service_is_not_open_to_strangers_by_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    """Beyond loopback it wants keys, or to be told that something else asks for them."""
    monkeypatch.setenv("VTAG_HOST", host)
    monkeypatch.setenv("VTAG_URL_HOSTS", "https://x")
    with pytest.raises(SettingsError) as caught:
        load()
    assert len(caught.value.lines) == 2, "together with every other mistake"
    [line] = [line for line in caught.value.lines if line.startswith("VTAG_ALLOW_OPEN: ")]
    assert "VTAG_API_KEYS_FILE" in line
    monkeypatch.delenv("VTAG_URL_HOSTS")
    monkeypatch.setenv("VTAG_ALLOW_OPEN", "true")
    assert load().host == host
    monkeypatch.delenv("VTAG_ALLOW_OPEN")
    keys = tmp_path / "keys.toml"
    keys.write_text(new_key("a")[1])
    monkeypatch.setenv("VTAG_API_KEYS_FILE", str(keys))
    assert load().api_keys_file == keys
    keys.write_text("[keys]")
    with pytest.raises(SettingsError, match="VTAG_API_KEYS_FILE: cannot be used"):
        load()
