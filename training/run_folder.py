"""The folder of a run: whose it is, how far it is, what ends up in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config import ConfigError
from training.run_config import RunConfig
from training.whole_file import write_whole

CLIP_FILE = "clip.safetensors"
TUNED_FILE = "tuned.safetensors"
LAST_FILE = "last.safetensors"
FACTS_FILE = "run.json"
_CHECKPOINT_FILE = "checkpoint.safetensors"
_CONFIG_FILE = "config.json"
_CONFIG_COPY = "config.toml"
#: What may change when a run goes on: it decides no weight.
_FREE = (
    "run",
    "checkpoint_every",
    "clips.",
    "select",
    "publish",
    "data.workers",
    "data.evaluation",
    "settings.clip_weight",
    "open_vclip.clip_weight",
)


class RunFolder:
    """The folder that `config.run` names."""

    def __init__(self, config: RunConfig) -> None:
        self.path = config.run
        self.checkpoint = self.path / _CHECKPOINT_FILE
        self._config = described(config)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / FACTS_FILE).is_file()

    def require_usable(self, *, resume: bool) -> None:
        """Raise ConfigError when the folder exists, and is not this run's to go on with."""
        if not self.path.exists():
            return
        if not resume:
            raise ConfigError(
                f"run = {str(self.path)!r}: exists already; a run needs a new folder, or --resume"
            )
        try:
            text = (self.path / _CONFIG_FILE).read_text(encoding="utf-8")
            began = json.loads(text)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"run = {str(self.path)!r}: cannot go on: {_CONFIG_FILE} cannot be read there"
            ) from error
        for key in sorted({*began, *self._config}):
            if key.startswith(_FREE):
                continue
            old, new = began.get(key), self._config.get(key)
            if old != new:
                raise ConfigError(
                    f"run = {str(self.path)!r}: cannot go on with another configuration: it began "
                    f"with {key} = {old!r}, not {new!r}"
                )

    def create(self, source: Path | None) -> None:
        """Make the folder, with the configuration in it; `source`, its file, is copied."""
        self.path.mkdir(parents=True, exist_ok=True)
        if source is not None:
            (self.path / _CONFIG_COPY).write_bytes(source.read_bytes())
        self._write(_CONFIG_FILE, self._config)

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the facts, which make the run a finished one, and remove the checkpoint."""
        self._write(FACTS_FILE, facts)
        self.checkpoint.unlink(missing_ok=True)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(content, indent=1) + "\n")


def finished_facts(run: Path) -> dict[str, Any]:
    """What `RunFolder.finish` wrote. Raises ConfigError when it did not, or cannot be read."""
    path = run / FACTS_FILE
    if not path.is_file():
        raise ConfigError(f"{run}: no finished run; `python -m training train` makes one")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be used: {error}") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{path}: cannot be used: no facts of a run")
    return facts


def described(config: RunConfig) -> dict[str, Any]:
    """A configuration as JSON, tables flattened: "data.train" -> value."""
    flat: dict[str, Any] = {}

    def add(prefix: str, table: dict[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                add(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    add("", json.loads(json.dumps(asdict(config), default=str)))
    return flat
