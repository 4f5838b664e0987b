"""How much memory a process may still take: what the machine has left, or less where a control group says so."""

import os
from pathlib import Path
from typing import Final

from models.cores import CGROUP, MEMBERSHIP, control_groups

_MEMINFO: Final = Path("/proc/meminfo")
# Of either version of control groups: the limit, what is taken, and what of that are files read long ago.
_FILES: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Bytes; 0 where nothing says so."""
    left = [_left(folder) for folder in control_groups("memory", cgroup=cgroup, membership=membership)]
    return max(0, min([_of_the_machine(meminfo), *(each for each in left if each is not None)]))


def _of_the_machine(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return _free_pages()


def _free_pages() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no such thing there
        return 0


def _left(folder: Path) -> int | None:
    """What a control group leaves, if it is limited."""
    for limit, taken, dispensable in _FILES:
        try:
            said = (folder / limit).read_text().strip()
            if said == "max":
                return None
            return int(said) - int((folder / taken).read_text()) + _statistic(folder / "memory.stat", dispensable)
        except (OSError, ValueError):  # none, or none that can be read
            continue
    return None


def _statistic(file: Path, name: str) -> int:
    """Bytes by that name, 0 where there is none."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
