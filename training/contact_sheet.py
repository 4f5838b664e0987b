"""One picture of many synthetic defects, for a person to judge what training takes for defective.

Each example is a strip of three tiles: the good image, the image with its synthetic defect, and the same with
the outline of the mask. Strips stand in two columns once there are more than a handful.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.arrays import Mask, Rgb

GAP: Final = 8
CAPTION: Final = 22
IN_ONE_COLUMN: Final = 4
PAPER: Final = (246, 246, 244)
INK: Final = (60, 60, 60)
OUTLINE: Final = (255, 40, 60)
TITLES: Final = ("good", "synthetic defect", "where it is")


def contact_sheet(examples: Sequence[tuple[Rgb, Rgb, Mask]], *, labels: Sequence[str] = ()) -> Rgb:
    """Compose examples (good, synthetic, mask), all of one size, into a labelled sheet (h, w, 3) uint8.

    `labels` are written below the strips, beside the share of the image that is defective; left out, strips
    are numbered. Raises ValueError if there is no example, or a number of labels that is not theirs.
    """
    if not examples:
        raise ValueError("A contact sheet needs at least one example.")
    if labels and len(labels) != len(examples):
        raise ValueError(f"{len(labels)} labels were given for {len(examples)} examples: give one each, or none.")
    height, width = examples[0][2].shape
    columns = 1 if len(examples) <= IN_ONE_COLUMN else 2
    rows = -(-len(examples) // columns)
    strip_width, strip_height = 3 * width + 2 * GAP, height + CAPTION
    size = (
        GAP * 2 + columns * strip_width + (columns - 1) * 3 * GAP,
        CAPTION + GAP + rows * (strip_height + GAP),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for column in range(columns):
        for place, title in enumerate(TITLES):
            left = GAP + column * (strip_width + 3 * GAP) + place * (width + GAP)
            draw.text((left, GAP), title, fill=INK, font=font)
    for index, (good, synthetic, mask) in enumerate(examples):
        row, column = divmod(index, columns)
        left, top = GAP + column * (strip_width + 3 * GAP), CAPTION + GAP + row * (strip_height + GAP)
        for place, tile in enumerate((good, synthetic, outlined(synthetic, mask))):
            sheet.paste(Image.fromarray(tile), (left + place * (width + GAP), top))
        name = labels[index] if labels else str(index + 1)
        draw.text((left, top + height + 3), f"{name}: {mask.mean():.1%} of the image", fill=INK, font=font)
    return np.asarray(sheet, dtype=np.uint8)


def outlined(rgb: Rgb, mask: Mask) -> Rgb:
    """A copy of `rgb` with the edge of `mask` drawn just outside it, so that the defect stays visible."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) > 0
    drawn = rgb.copy()
    drawn[grown & ~mask] = OUTLINE
    return drawn
