"""The pixels of a JPEG, all of them: libjpeg only warns of data that is missing or makes no sense, and paints it grey.

simplejpeg reports such a warning, which Pillow keeps to itself, and decodes to the same pixels in less time. A JPEG
has no checksums: damage that happens to be good code as well is seen by nobody. Nor is any in colours that are sampled
in a way that simplejpeg does not know, as no usual program does: these are left to Pillow.
"""

import re
from typing import Final, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Colours = Literal["GRAY", "RGB", "CMYK"]

_END: Final = b"\xff\xd9"
_LEFT_OVER: Final = re.compile("extraneous bytes before marker 0xd9$")
_UNKNOWN: Final = "Could not determine subsampling"


def jpeg_pixels(data: bytes, colours: Colours, *, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """(h, w) for GRAY, else (h, w, 3 or 4) uint8, as they are stored: not turned upright. Safe in any thread.

    `size` (h, w) is the picture's own or a fraction of it that libjpeg can decode to. None: of an unknown kind.
    Raises ValueError for damage.
    """
    try:
        found = _decoded(data, colours, size)
    except ValueError as reason:
        if _UNKNOWN in str(reason):
            return None
        # Some cameras fill up what they send with zeros in front of the end.
        whole, end, behind = data.rpartition(_END)
        if not _LEFT_OVER.search(str(reason)) or not whole.endswith(b"\0"):
            raise
        found = _decoded(whole.rstrip(b"\0") + end + behind, colours, size)
    if found.shape[:2] != size:
        raise ValueError(f"decoded to {found.shape[1]}x{found.shape[0]} pixels and not to {size[1]}x{size[0]}")
    return found[..., 0] if colours == "GRAY" else found


def _decoded(data: bytes, colours: Colours, size: tuple[int, int]) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, min_height=size[0], min_width=size[1], strict=True)
    return found
