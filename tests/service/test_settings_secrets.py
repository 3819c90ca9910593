"""Secrets of the settings from files."""

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.settings import Settings, SettingsError, load
from service.settings_help import help_text
from service.settings_secrets import secret_names

URL = "postgresql://vtag:hunter2@db/vtag"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VTAG_") or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the address of a database, with the line end that editors leave."""
    path = tmp_path / "secret"
    path.write_text(f"{URL}\n")
    return path


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    """VTAG_DATABASE_URL_FILE sets what VTAG_DATABASE_URL sets, white space around it dropped."""
    monkeypatch.setenv("VTAG_DATABASE_URL_FILE", str(secret))
    assert load().database_url == SecretStr(URL)


def test_every_secret_setting_has_its_file_and_help_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """None is left out: the variables are made from the fields that are secret."""
    names = secret_names(Settings.model_fields)
    assert {"database_url", "redis_url"} <= set(names)
    for name in names:
        variable = f"VTAG_{name.upper()}_FILE"
        assert f"or {variable}, a file" in help_text()
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
        with pytest.raises(
            SettingsError, match=re.escape(f"{variable}: {tmp_path}/nothing cannot")
        ):
            load()
        monkeypatch.delenv(variable)


def test_a_setting_that_is_no_secret_has_no_file(
    monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    """VTAG_PORT_FILE is a misspelt setting like any other."""
    monkeypatch.setenv("VTAG_PORT_FILE", str(secret))
    with pytest.raises(SettingsError, match="VTAG_PORT_FILE: no such setting"):
        load()


def test_a_secret_is_set_once(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    """Which of two would count is not guessed."""
    monkeypatch.setenv("VTAG_DATABASE_URL_FILE", str(secret))
    monkeypatch.setenv("VTAG_DATABASE_URL", URL)
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.lines == [
        "VTAG_DATABASE_URL_FILE: is set, and VTAG_DATABASE_URL too: choose one"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfehunter2", "is not UTF-8 text"),
        (b"hunter2" * 600, "is longer than 4096 bytes"),
        (b"mysql://me:hunter2@there/db", "must start with postgresql:// or postgres://"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, secret: Path, content: bytes, said: str
) -> None:
    """One line names the variable; what the file holds is not repeated."""
    secret.write_bytes(content)
    monkeypatch.setenv("VTAG_DATABASE_URL_FILE", str(secret))
    with pytest.raises(SettingsError) as caught:
        load()
    [line] = caught.value.lines
    assert line.startswith("VTAG_DATABASE_URL_FILE: ")
    assert line.endswith(said)
    assert "hunter2" not in line
