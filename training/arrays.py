"""The arrays that training passes around, by name. An image is always RGB, never BGR."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]  # (n,) which pictures; or of each the fold
Rgb: TypeAlias = npt.NDArray[np.uint8]  # (h, w, 3)
Mask: TypeAlias = npt.NDArray[np.bool_]  # (h, w)
Field: TypeAlias = npt.NDArray[np.float32]  # (h, w) one number a pixel, or (h, w, 3)
