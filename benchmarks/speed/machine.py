"""What this runs on: the processor, how many of its cores this process may use, and the versions that count.

Also what JigSight's detector computes in there: the bare backbone it is compared with computes in the same.
"""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from models.cores import usable_cores
from models.precision import pick_precision

_BUSY: Final = 0.25  # of the cores: with other work than that, threads of one contestant wait for one another


def describe(*, threads: int, device: str) -> dict[str, Any]:
    """The machine, for the report."""
    models = [value for key, value in _processor() if key == "model name"]
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0
    packages = ("torch", "torchvision", "numpy", "pillow", "opencv-python-headless")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "usable_cores": usable_cores(),
        "threads": threads,
        "precision": str(pick_precision("auto", torch.device(device))).removeprefix("torch."),
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "load_average": load,
        "busy": load > _BUSY * usable_cores(),
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def _processor() -> list[tuple[str, str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
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
