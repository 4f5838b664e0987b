"""How much memory a process may still take: what the machine has left, or less where a control group says so."""

import os
from pathlib import Path
from typing import Final

from models.cores import CGROUP, MEMBERSHIP, control_groups

_MEMINFO: Final = Path("/proc/meminfo")
# Of either version of control groups: the limit, and what is taken.
_FILES: Final = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


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
    for limit, taken in _FILES:
        try:
            said = (folder / limit).read_text().strip()
            return None if said == "max" else int(said) - int((folder / taken).read_text())
        except (OSError, ValueError):  # none, or none that can be read
            continue
    return None
