"""Which files of a folder are pictures: by their suffix, hidden ones (macOS's `._a.png`) not among them."""

from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def is_picture(path: Path) -> bool:
    """Whether a file is to be read as a picture; what it holds is not looked at."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
