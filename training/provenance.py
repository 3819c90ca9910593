"""What a result depends on besides its configuration."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from training.precision import Precision, resolve


def environment(device: torch.device | str, *, precision: Precision) -> dict[str, Any]:
    """Commit, versions, machine, and the number format that `precision` means on this device.

    All values are JSON. Arithmetic differs between versions of torch, processors and formats, so
    figures are only comparable with these beside them.
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "git_commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device}: {name}",
        "precision": resolve(device, precision),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit this is run from, with "-dirty" after changes; None outside a repository."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607 - the PATH's git
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return described.stdout.strip() or None


def _processor() -> str:
    """The processor's name; platform.processor() is empty on many Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
