"""Score maps as they are stored: float16, on their own grid, row by row.

Half precision rounds by up to 0.05 %, which could carry a value across the threshold, or across the value that
regions reach down to; such values are nudged back, so that what is drawn from a stored map agrees with the verdict.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

_STORED = np.dtype("<f2")


def pack(
    score_map: NDArray[np.float32], *, threshold: float, pixel_threshold: float | None = None
) -> NDArray[np.float16]:
    """(h, w) float32 -> (h, w) float16 with the same cells above the threshold (if it is below 65504).

    And above `pixel_threshold`, unless it is so close to the threshold that no float16 lies between.
    """
    largest = float(np.finfo(_STORED).max)
    packed = np.clip(score_map, -largest, largest).astype(_STORED)
    # The threshold comes last, so it has the last word.
    for limit in (threshold if pixel_threshold is None else pixel_threshold, threshold):
        packed = _nudge(packed, score_map, limit)
    return packed


def _nudge(packed: NDArray[np.float16], score_map: NDArray[np.float32], threshold: float) -> NDArray[np.float16]:
    """To the next float16, where rounding has crossed the threshold."""
    largest = float(np.finfo(_STORED).max)
    above = score_map.astype(np.float64) > threshold
    was_above = packed.astype(np.float64) > threshold
    with np.errstate(over="ignore"):
        nudged = np.nextafter(packed, np.where(above, np.inf, -np.inf).astype(_STORED))
    return np.clip(np.where(above == was_above, packed, nudged), -largest, largest)


def to_bytes(packed: NDArray[np.float16]) -> bytes:
    """The bytes that go into the database."""
    return packed.astype(_STORED).tobytes()


def from_bytes(data: bytes, *, shape: tuple[int, int]) -> NDArray[np.float16]:
    """What `to_bytes` was given. Raises ValueError if there are too few or too many bytes."""
    return np.frombuffer(data, _STORED).reshape(shape)


def to_npy(packed: NDArray[np.float16]) -> bytes:
    """The bytes of a NumPy `.npy` file, for `style=raw`."""
    file = BytesIO()
    np.save(file, packed, allow_pickle=False)
    return file.getvalue()
