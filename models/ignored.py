"""What of a picture is ignored: fixtures, moving backgrounds, and whatever else says nothing about the part.

It is painted in a PNG, on black or on nothing, and belongs to a category: parts must lie where they lay in training.
Here paint becomes positions of the score map; `Smoothing` leaves those out. Refused are masks that say nothing.
"""

from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from models.errors import DatasetError, UnsupportedImage
from models.images import decode, media_type
from models.preprocess import PreprocessConfig, covered_box

_MOST_COLOURS = 1000  # a soft brush makes 256
_HALF = 0.5 - 1e-9  # of a cell's area, less rounding


def painted(data: bytes) -> NDArray[np.bool_]:
    """Bytes of a PNG -> (h, w) bool, true where something was painted.

    Painted is what is not transparent, if the picture has transparent pixels, else what is not black. Raises
    ImageError as `models.images.decode` does, and for any other format: lossy ones put paint beside the paint.
    """
    if media_type(data) != "image/png":
        raise UnsupportedImage(f"An ignore mask must be a PNG, and this is {media_type(data)}. Save it as PNG.")
    colours = decode(data)  # refuses what is damaged, before it is looked at again
    with PngImageFile(BytesIO(data)) as opened:
        if opened.has_transparency_data:
            alpha = np.asarray(ImageOps.exif_transpose(opened.convert("RGBA")).getchannel("A"))
            # Programs for painting add an opaque alpha channel to whatever they save: it says nothing.
            if not (alpha == 255).all():
                return np.asarray(alpha > 0)
    if (drawn := len(np.unique(colours.reshape(-1, 3), axis=0))) > _MOST_COLOURS:
        raise UnsupportedImage(
            f"An ignore mask is drawn, not taken: this PNG has {drawn:,} colours, as a photograph has. Paint on "
            "a black picture, white where nothing is to be inspected."
        )
    return np.asarray(colours.max(axis=2) > 0)


def kept_positions(ignored: NDArray[np.bool_], config: PreprocessConfig, grid: tuple[int, int]) -> Tensor:
    """A picture's ignored pixels (h, w), of any size -> positions of the score map that count, `grid` bool.

    A position is ignored where at least half of its cell is. DatasetError if all are, or none is: then the mask would
    do nothing.
    """
    x0, y0, x1, y1 = covered_box(config, (ignored.shape[0], ignored.shape[1]))
    rows = _shares(ignored.shape[0], y0, y1, grid[0])
    columns = _shares(ignored.shape[1], x0, x1, grid[1])
    keep = torch.from_numpy(rows @ ignored.astype(np.float64) @ columns.T < _HALF)
    if not keep.any():
        raise DatasetError("The ignore mask covers all that the network sees: nothing is left to inspect. Paint less.")
    if keep.all():
        raise DatasetError(
            f"The ignore mask covers half of no cell of the map, which has {grid[1]}x{grid[0]} of them: it would do "
            "nothing. Paint larger areas."
        )
    return keep


def _shares(pixels: int, start: float, stop: float, cells: int) -> NDArray[np.float64]:
    """One axis: (cells, pixels), how much of each cell between `start` and `stop` each pixel makes up."""
    edges = np.linspace(start, stop, cells + 1)[:, None]
    first = np.arange(pixels)
    overlap = np.minimum(edges[1:], first + 1) - np.maximum(edges[:-1], first)
    shares: NDArray[np.float64] = np.clip(overlap, 0, None) * (cells / (stop - start))
    return shares
