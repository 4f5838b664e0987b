"""A picture file as an array, for contestants whose own readers give something else."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(path: str | Path, edge: int | None = None) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB; squashed to edge×edge if that is given."""
    picture = Image.open(path).convert("RGB")
    return np.array(picture if edge is None else picture.resize((edge, edge), Image.Resampling.BILINEAR))
