"""Whether a result can be written, asked before the hours that it takes; nothing is made or changed by asking."""

import os
from pathlib import Path

from models.errors import JigSightError


def check_file(path: Path, *, option: str) -> None:
    """Raise JigSightError unless the file can be written, its folders made on the way."""
    if path.is_dir():
        raise JigSightError(f"{path} is a folder, and {option} writes a file. Give a file's name.")
    if not path.exists():
        check_folder(path.parent, option=option)
    elif not os.access(path, os.W_OK):
        raise JigSightError(f"{path} may not be written to. Give {option} another file.")


def check_folder(path: Path, *, option: str) -> None:
    """Raise JigSightError unless files can be written into the folder, or it can be made."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise JigSightError(f"{path} cannot be a folder: {there} is a file. Give {option} another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise JigSightError(f"Nothing can be written in {there}. Give {option} another place.")
