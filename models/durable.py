"""Making what was written outlast a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file, or a directory and so the renames in it, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
