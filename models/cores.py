"""How many cores a process may use, and no more threads than that.

torch counts the cores of its affinity. A container that is limited to four of sixty-four has a quota instead: its
threads would be stopped together, again and again, in the middle of a batch.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

CGROUP: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CHOSEN: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def use_cores() -> None:
    """Let torch compute with as many threads as there are cores to use, unless the environment says how many."""
    if not any(name in os.environ for name in _CHOSEN):
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def compute_with(threads: int) -> None:
    """Let torch use so many threads in this one, whatever is said in others."""
    torch.get_num_threads()  # a thread that has never asked would still take the number that was set last, anywhere
    torch.set_num_threads(threads)


@contextmanager
def on_one_core() -> Iterator[None]:
    """Torch starts no threads within, for small work beside that of others.

    Each thread that computes gets a team of OpenMP's own, which stays. Once there are more of these than cores, all of
    them sleep after every step: with four threads that resize pictures a detector takes twice as long (docs/log.md).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores(*, cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Cores that this process may use at once: by its affinity, and by the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folders = control_groups("cpu", cgroup=cgroup, membership=membership)
    quotas = [quota for folder in folders if (quota := _quota(folder)) is not None]
    return max(1, min([allowed, *(math.floor(quota) for quota in quotas)]))


def control_groups(controller: str, *, cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> list[Path]:
    """The folders of the control group that this process is in and of those above it, of either version."""
    found = [cgroup, cgroup / controller]
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        root = cgroup if not controllers else cgroup / controller if controller in controllers.split(",") else None
        if root is not None:
            parts = [part for part in path.split("/") if part not in ("", "..")]
            found += [root.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    return found


def _quota(folder: Path) -> float | None:
    """Cores that a control group may use, if it is limited."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # none, or none that can be read
        return None
