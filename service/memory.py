"""How much memory this process may still take: of the machine, and of its control groups."""

from pathlib import Path
from typing import Final

_MACHINE: Final = Path("/proc/meminfo")
_GROUPS: Final = Path("/proc/self/cgroup")
_GROUP_ROOT: Final = Path("/sys/fs/cgroup")


def available_bytes(
    *, machine: Path = _MACHINE, groups: Path = _GROUPS, group_root: Path = _GROUP_ROOT
) -> int | None:
    """Return the bytes that can be taken without swapping or being killed; None: unknown."""
    found = [*_of_machine(machine), *_of_groups(groups, group_root)]
    return min(found, default=None)


def _of_machine(path: Path) -> list[int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]


def _of_groups(path: Path, root: Path) -> list[int]:
    """Of this process's group (version 2) and those around it: what each has left."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    names = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not names:
        return []
    folder = root / names[0].lstrip("/")
    found = []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        left = _left_in(place)
        if left is not None:
            found.append(left)
    return found


def _left_in(group: Path) -> int | None:
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        statistics = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    # The kernel gives the file cache back before it kills.
    cache = sum(int(line.split()[1]) for line in statistics if line.startswith("inactive_file "))
    return max(0, int(limit) - used + cache)
