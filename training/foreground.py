"""Where the part is in a picture (seed, step 1.3), and from that whether a category is an object or a texture.

The background is what the border of the picture looks like: each pixel's colour distance from the border's
median is binarised by Otsu's threshold. The polarity follows from the border by itself, and a part as bright
as its background but of another colour is still found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from models.errors import DatasetError
from training.arrays import Field, Mask, Rgb

KEPT_COMPONENT: Final = 0.1  # of the largest one's area: smaller ones are dust or noise

# What makes a picture one of an object; medians over the pictures. MVTec's screw has border ratio 0.00, contrast
# 32 and step 0.51 (its soft shadow blurs the contour); of ten DTD classes the lowest border ratio is 0.67; an
# even surface that falls off by 60 % towards its corners has contrast 10 and step 0.27.
MAX_BORDER_RATIO: Final = 0.3
MIN_SHARE: Final = 0.005
MAX_SHARE: Final = 0.9
MIN_STEP: Final = 0.4
MIN_CONTRAST: Final = 6.0
EXAMINED: Final = 20


@dataclass(frozen=True)
class Foreground:
    """A part's mask and how much it looks like one."""

    mask: Mask  # (h, w)
    share: float  # of the picture that is foreground
    border_share: float  # of the border that is foreground
    contrast: float  # difference of the two sides' mean distance from the border colour, in Lab units
    step: float  # of that difference, how much happens close to the contour; 1 = a sharp edge

    @property
    def touches_border(self) -> bool:
        """Whether the part runs out of the picture anywhere."""
        return self.border_share > 0

    @property
    def border_ratio(self) -> float:
        """How much of the border is foreground compared with the whole: about 1 on a texture."""
        return self.border_share / self.share if self.share else 0.0


@dataclass(frozen=True)
class KindDecision:
    """Object or texture, and the reason in words."""

    kind: Literal["object", "texture"]
    reason: str


def foreground_mask(rgb: Rgb) -> Mask:
    """(h, w) bool, true on the part; all false where the picture is one even colour."""
    return _binarise(_border_distance(rgb))


def describe_foreground(rgb: Rgb) -> Foreground:
    """The mask of `rgb` (h, w, 3) uint8 with the numbers by which `decide_kind` judges it."""
    distance = _border_distance(rgb)
    mask = _binarise(distance)
    share = float(mask.mean())
    border_share = float(mask[_border(mask.shape)].mean())
    if share in (0.0, 1.0):
        return Foreground(mask, share, border_share, contrast=0.0, step=0.0)
    contrast = float(distance[mask].mean() - distance[~mask].mean())
    reach = _odd(max(mask.shape) / 16)
    inner = mask & ~_morph(mask, cv2.MORPH_ERODE, reach)
    outer = ~mask & _morph(mask, cv2.MORPH_DILATE, reach)
    jump = float(distance[inner].mean() - distance[outer].mean()) if outer.any() and inner.any() else 0.0
    return Foreground(mask, share, border_share, contrast=contrast, step=jump / max(contrast, 1e-6))


def decide_kind(images: Sequence[Rgb]) -> KindDecision:
    """Object if the pictures show a contour that stands off their border, else texture.

    Looks at up to 20 of the pictures, spread over the sequence, and judges by medians. Raises DatasetError
    if there is none.
    """
    if not images:
        raise DatasetError("No picture to tell an object from a texture by: give at least one good picture.")
    spread = np.linspace(0, len(images) - 1, min(len(images), EXAMINED)).round().astype(int)
    seen = [describe_foreground(images[index]) for index in spread]
    share, ratio, contrast, step = (
        float(np.median([getattr(one, name) for one in seen])) for name in ("share", "border_ratio", "contrast", "step")
    )
    counted = f"{len(seen)} picture{'s' if len(seen) > 1 else ''}"
    if not MIN_SHARE <= share <= MAX_SHARE or contrast < MIN_CONTRAST:
        return KindDecision(
            "texture",
            f"nothing stands out from the border of the picture: foreground {share:.1%} of the area, "
            f"colour contrast {contrast:.1f} (medians of {counted})",
        )
    if ratio > MAX_BORDER_RATIO:
        return KindDecision(
            "texture",
            f"what stands out runs over the border too: {ratio:.0%} as dense there as in the whole picture "
            f"(at most {MAX_BORDER_RATIO:.0%} on an object; medians of {counted})",
        )
    if step < MIN_STEP:
        return KindDecision(
            "texture",
            f"what stands out has no contour, only a gradual change: {step:.0%} of the contrast lies at its "
            f"edge (at least {MIN_STEP:.0%} on an object; medians of {counted})",
        )
    return KindDecision(
        "object",
        f"a part stands clear of the border: {share:.1%} of the area, colour contrast {contrast:.1f}, "
        f"{step:.0%} of it at the contour (medians of {counted})",
    )


def _border_distance(rgb: Rgb) -> Field:
    """Lab distance of each (slightly blurred) pixel from the median colour of the border."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), max(rgb.shape[:2]) / 150)
    lab = cv2.cvtColor(blurred.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    background = np.median(lab[_border(lab.shape)], axis=0)
    # Plane by plane: NumPy's norm along a last axis of three takes longer than all the rest of a mask.
    squares = (np.square(plane - level) for plane, level in zip(cv2.split(lab), background, strict=True))
    return np.asarray(np.sqrt(sum(squares)), dtype=np.float32)


def _border(shape: tuple[int, ...]) -> Mask:
    """The outermost 3 % of the picture on each side."""
    margin = max(1, min(shape[:2]) // 32)
    border = np.ones(shape[:2], dtype=np.bool_)
    border[margin:-margin, margin:-margin] = False
    return border


def _binarise(distance: Field) -> Mask:
    """Otsu's threshold, gaps closed, and of the pieces only those not much smaller than the largest."""
    peak = float(distance.max())
    if peak < 1:  # less than the eye can tell apart: an even surface
        return np.zeros(distance.shape, dtype=np.bool_)
    levels = (distance * np.float32(255 / peak)).astype(np.uint8)
    _, binary = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    closed = _morph(binary > 0, cv2.MORPH_CLOSE, _odd(max(distance.shape) / 34))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed.astype(np.uint8))
    if count == 1:
        return closed
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.concatenate([[False], areas >= KEPT_COMPONENT * areas.max()])
    return np.asarray(kept[labels], dtype=np.bool_)


def _morph(mask: Mask, operation: int, diameter: int) -> Mask:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), operation, kernel) > 0, dtype=np.bool_)


def _odd(length: float) -> int:
    """The odd number of pixels nearest above `length`, at least 3: a kernel needs a middle."""
    return max(3, 2 * int(length / 2) + 1)
