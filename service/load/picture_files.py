"""The pictures that are sent: files and folders -> their bytes, all in memory, so that no disk slows the sender."""

from collections.abc import Sequence
from pathlib import Path

from service.load.errors import LoadError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MOST_BYTES = 2**30


def read_pictures(paths: Sequence[Path], *, most_bytes: int = MOST_BYTES) -> list[bytes]:
    """The bytes of each file, and of each file in a folder (and below) whose name is a picture's, sorted.

    A file that is named itself is taken whatever it is: what the server says to it may be the question. Raises
    LoadError if there is nothing to send or more than `most_bytes`, and OSError for what cannot be read.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        named = ", ".join(map(str, paths)) or "nothing"
        raise LoadError(f"There is no picture to send in {named}. Name files, or folders with {', '.join(SUFFIXES)}.")
    total = sum(file.stat().st_size for file in files)
    if total > most_bytes:
        raise LoadError(
            f"These {len(files)} pictures take {total / 2**20:.0f} MiB, and they are kept in memory: at most "
            f"{most_bytes / 2**20:.0f} MiB. Name fewer; they are sent again and again anyway."
        )
    return [file.read_bytes() for file in files]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
