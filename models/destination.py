"""Whether a result can be written, asked before the hours that it takes; nothing is left or changed by asking.

It is tried, not looked up: root may write anywhere, as the permissions have it, and yet nowhere on a read-only disk.
"""

import tempfile
from pathlib import Path

from models.errors import JigSightError


def check_file(path: Path, *, option: str) -> None:
    """Raise JigSightError unless the file can be written, its folders made on the way."""
    if not _exists(path, option=option):
        check_folder(path.parent, option=option)
        return
    if path.is_dir():
        raise JigSightError(f"{path} is a folder, and {option} writes a file. Give a file's name.")
    if not path.is_file():
        return  # a pipe's reader would take the trial for the end
    try:
        path.open("ab").close()
    except OSError as error:
        raise JigSightError(f"{path} cannot be written to ({error.strerror}). Give {option} another file.") from error


def check_folder(path: Path, *, option: str) -> None:
    """Raise JigSightError unless files can be written into the folder, or it can be made."""
    there = check_no_file(path, option=option)
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise JigSightError(
            f"Nothing can be written in {there} ({error.strerror}). Give {option} another place."
        ) from error


def check_no_file(path: Path, *, option: str) -> Path:
    """The folder itself, or the nearest that there is above it. Raise JigSightError if a file is in its way."""
    there = next(each for each in (path, *path.absolute().parents) if _exists(each, option=option))
    if not there.is_dir():
        raise JigSightError(f"{path} cannot be a folder: {there} is a file. Give {option} another place.")
    return there


def _exists(path: Path, *, option: str) -> bool:
    """Raise JigSightError where nobody can tell, as below a closed folder, or it is a link that leads nowhere."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        raise JigSightError(
            f"{path} is a link to {path.readlink()}, and there is nothing. Remove it, or give {option} another place."
        ) from None
    except OSError as error:
        raise JigSightError(f"{path} cannot be looked up ({error.strerror}). Give {option} another place.") from error
    return True
