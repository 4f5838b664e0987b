"""Which alignment a category gets: none, or the one that finds synthetic defects best.

The scale makes the longest of the good parts fit, and no part is enlarged more than the oversampling has detail for,
but for the stretch: how much more a long part may be enlarged across than along, to fill the square.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from models.alignment import LARGEST_SCALE, OVERSAMPLING, Alignment, AlignmentConfig, moments, part_mask
from training.recipe import AlignmentSection
from training.synthetic import Tiles

ANY: Final = AlignmentConfig(name="shift")  # pictures are taken alike for all of them: for whichever it will be

_FILL = 0.95  # of the frame, by the longest part
_SEEN = 0.95  # of the pictures must show a part
_BATCH = 64


def alignments(
    tiles: Tiles, section: AlignmentSection, *, square: bool, keep: Tensor | None = None
) -> list[AlignmentConfig]:
    """The alignments that a recipe's section means for good pictures; none where no part stands out.

    Under "rotate" pictures must be `square` before they were squashed: turning the others would shear the part.
    """
    reaches, found = [], 0
    for batch in tiles.batches(_BATCH):
        mask = part_mask(batch, keep)
        centre, _, reach = moments(mask)
        reaches.append(torch.stack([reach, _box_reach(mask, centre)], dim=1))  # (b, way, 2)
        found += int(mask.any(dim=(1, 2)).sum())
    if found < _SEEN * len(tiles):
        return []
    furthest = torch.cat(reaches).amax(0)  # (way, 2)
    configs = []
    for way in section.ways:
        if way == "rotate" and not square:
            continue
        reach = furthest[0 if way == "rotate" else 1]
        for stretch in section.stretches:
            along, across = _scales(reach, stretch)
            configs.append(AlignmentConfig(name=way, along=along, across=across))
    return list(dict.fromkeys(configs))


def _scales(reach: Tensor, stretch: float) -> tuple[float, float]:
    """Scales that fit parts which reach so far (along, across) from the middle, rounded down to percents."""
    room = [_FILL / max(float(side), 1e-3) for side in reach]
    limit = min(*room) * stretch
    along, across = (int(min(side, limit, LARGEST_SCALE) * 100) / 100 for side in room)
    return max(along, 0.11), max(across, 0.11)


def _box_reach(mask: Tensor, centre: Tensor) -> Tensor:
    """How far masks (b, t, t) extend from their centres (b, 2) horizontally and vertically, (b, 2)."""
    t = mask.shape[-1]
    line = (torch.arange(t) * 2 + 1) / t - 1
    wide = (mask.any(dim=1) * (line - centre[:, :1]).abs()).amax(1)
    high = (mask.any(dim=2) * (line - centre[:, 1:]).abs()).amax(1)
    return torch.stack([wide, high], dim=1)


def unaligned(pictures: Tensor) -> Tensor:
    """Pictures (b, 3, S, S) uint8 that were taken for an alignment, as they would be without."""
    return F.avg_pool2d(pictures.float(), OVERSAMPLING).round().to(torch.uint8)


def label(align: AlignmentConfig | None) -> str:
    """An alignment in words."""
    return "none" if align is None else f"{align.name} x{align.along:g} x{align.across:g}"


@torch.inference_mode()
def inspected_share(tiles: Tiles, align: AlignmentConfig, *, keep: Tensor | None) -> float:
    """The share of a picture that lies in the part's frame, on average over some good pictures."""
    batch = next(tiles.batches(_BATCH))
    alignment = Alignment(align, side=batch.shape[-1] // OVERSAMPLING)
    _, outside = alignment.back(torch.zeros(len(batch), 56, 56), alignment.pose(batch, keep))
    return 1 - float(outside.float().mean())
