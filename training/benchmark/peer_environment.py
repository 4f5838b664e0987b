"""The peers' own virtual environment: made once with `venv` and `pip`, found ready the next time.

anomalib is not a dependency of JigSight and must not change what JigSight runs on.
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
    """The environment's interpreter, after making the environment if it is not ready.

    JigSightError, saying what to do, if it cannot be made, as on a machine without internet.
    """
    python = folder.absolute() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = folder / _READY
    if python.is_file() and ready.is_file() and ready.read_text(encoding="utf-8").strip() == REQUIREMENT:
        return python
    console.print(f"Installing {REQUIREMENT} into {folder}: some minutes and 6 GB, once.", markup=False)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], folder)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT], folder)
    ready.write_text(REQUIREMENT + "\n", encoding="utf-8")
    return python


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).strip().splitlines() if line.strip()]
        raise JigSightError(
            f"The peers' environment {folder} cannot be made: {lines[-1] if lines else done.returncode}. Without "
            f"internet: make one elsewhere alike (python -m venv, pip install {REQUIREMENT}), copy it, put the line "
            f"{REQUIREMENT} into its {_READY}, and give it with --peers-venv; or leave --peers out."
        )
