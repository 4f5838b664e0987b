"""What this runs on: the processor, how many of its cores this process may use, and the versions that count."""

import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

_CGROUP: Final = Path("/sys/fs/cgroup")
_NATIVE = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # flags of x86's and ARM's /proc/cpuinfo
_BUSY: Final = 0.25  # of the cores: with other work than that, threads of one contestant wait for one another


def usable_cores(*, cgroup: Path = _CGROUP, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use at once: by its affinity, and by the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(cgroup, membership) if (quota := _quota(folder)) is not None]
    return max(1, min([allowed, *(math.floor(quota) for quota in quotas)]))


def _groups(cgroup: Path, membership: Path) -> list[Path]:
    """The folders of the control group that this process is in and of those above it, of either version."""
    found = [cgroup, cgroup / "cpu"]
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = cgroup if not controllers else cgroup / "cpu" if "cpu" in controllers.split(",") else None
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
    except OSError:
        return None
    return None if limit in ("max", "-1") else int(limit) / int(period)


def native_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor computes in bfloat16 itself."""
    return any(_NATIVE & set(value.split()) for key, value in _cpu(cpuinfo) if key in ("flags", "Features"))


def describe(*, threads: int, device: str) -> dict[str, Any]:
    """The machine, for the report."""
    models = [value for key, value in _cpu(Path("/proc/cpuinfo")) if key == "model name"]
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0
    packages = ("torch", "torchvision", "numpy", "pillow", "opencv-python-headless")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "usable_cores": usable_cores(),
        "threads": threads,
        "bfloat16": native_bfloat16(),
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "load_average": load,
        "busy": load > _BUSY * usable_cores(),
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def _cpu(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines if ":" in line)
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
