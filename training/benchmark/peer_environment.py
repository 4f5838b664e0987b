"""Peers' virtual environments: each made once with `venv` and `pip`, found ready the next time.

No peer is a dependency of JigSight, and none may change what JigSight runs on.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from models.errors import JigSightError

REQUIREMENT: Final = "anomalib==2.7.0"
_READY = "jigsight-peers.txt"  # written last, so an environment that was not finished is made again


def peer_environment(folder: Path, console: Console) -> Path:
    """The interpreter of anomalib's environment, after making the environment if it is not ready.

    JigSightError, saying what to do, if it cannot be made, as on a machine without internet.
    """
    return make_environment(
        folder, REQUIREMENT, console=console, otherwise="and give it with --peers-venv; or leave --peers out"
    )


def make_environment(folder: Path, requirement: str, *, console: Console, otherwise: str) -> Path:
    """The interpreter of an environment with `requirement`, after making the environment if it is not ready.

    JigSightError if it cannot be made; `otherwise` ends what it says to do without internet.
    """
    python = folder.absolute() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = folder / _READY
    if python.is_file() and ready.is_file() and ready.read_text(encoding="utf-8").strip() == requirement:
        return python
    console.print(f"Installing {requirement} into {folder}: some minutes and 6 GB, once.", markup=False)
    venv = [sys.executable, "-m", "venv", "--clear", str(folder)]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    reason = _failure(venv) or _failure(pip)
    if reason:
        raise JigSightError(
            f"The peers' environment {folder} cannot be made: {reason}. Without internet: make one elsewhere alike "
            f"(python -m venv, pip install {requirement}), copy it, put the line {requirement} into its {_READY}, "
            f"{otherwise}."
        )
    ready.write_text(requirement + "\n", encoding="utf-8")
    return python


def _failure(command: list[str]) -> str | None:
    """The last line of what a command said, if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stderr + done.stdout).strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
