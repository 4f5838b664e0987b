"""Bringing parts into one place, direction and size, so that a position of the grid is a place on the part.

A Gaussian per position compares like with like only where parts lie alike. (The source names such an alignment,
FYD's, among the prior art.) The pose comes from the picture alone: what differs from its border, the centre of that,
its longest axis, and to which side it tails off. The picture is taken `OVERSAMPLING` times larger than the network's
input and sampled once, so that turning costs no sharpness. Maps are turned back, onto an equally finer grid, before
anything is made of them: but for this module and the scorer everything is in the picture's own frame.
"""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

OVERSAMPLING = 2
LARGEST_SCALE = float(OVERSAMPLING)  # beyond it there is no detail, and a map that is turned back would lose peaks
_THUMBNAIL = 112  # pixels: enough for a centre and an axis
_BORDER = 32  # one part in so many of the thumbnail's edge is border
_BINS = 128
_EVEN = 4.0  # grey levels: a picture whose pixels differ less from its border shows no part


class Pose(NamedTuple):
    """Where parts are: `centre` (b, 2) as (x, y) in [-1, 1] of the picture; `angle` (b,) of the axis, radians."""

    centre: Tensor
    angle: Tensor

    def of(self, some: slice | Tensor) -> "Pose":
        """The poses of some of the pictures, a range of them or the ones at indices (m,) int64."""
        return Pose(self.centre[some], self.angle[some])


class AlignmentConfig(BaseModel):
    """How parts are aligned: "shift" moves the part's centre to the middle, "rotate" also turns its axis level.

    `along` and `across` scale the picture along the axis and across it (under "shift": horizontally, vertically).
    What is scaled out of the frame is not inspected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["shift", "rotate"]
    along: Annotated[float, Field(gt=0.1, le=LARGEST_SCALE)] = 1.0
    across: Annotated[float, Field(gt=0.1, le=LARGEST_SCALE)] = 1.0


class Alignment(nn.Module):
    """Pictures (b, 3, S, S), S = OVERSAMPLING * side, to the part's own frame (b, 3, side, side), and maps back."""

    def __init__(self, config: AlignmentConfig, *, side: int) -> None:
        super().__init__()
        self.config = config
        self.side = side

    def forward(self, batch: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Pose]:
        """(b, 3, S, S) uint8 -> the aligned pictures, float32 in 0..255, and the pose that leads back.

        `keep` (h, w), bool and of any size, is false where pictures are not looked at.
        """
        pose = self.pose(batch, keep)
        return self.align(batch.float(), pose), pose

    def pose(self, batch: Tensor, keep: Tensor | None = None) -> Pose:
        """The pose of each part in pictures (b, 3, S, S); the middle and no angle where no part is to be seen."""
        centre, axis, _ = moments(part_mask(batch, keep))
        return Pose(centre, axis if self.config.name == "rotate" else torch.zeros_like(axis))

    def align(self, images: Tensor, pose: Pose) -> Tensor:
        """Images (b, c, S, S) float -> (b, c, side, side) in the part's frame, edges continued outwards."""
        # From the aligned frame to the picture: unscaled, then turned by the angle, then moved to the centre.
        theta = torch.cat([_turn(pose.angle) / self._scale(pose), pose.centre.unsqueeze(2)], dim=2)
        fine = F.affine_grid(theta, [len(images), 1, 2 * self.side, 2 * self.side], align_corners=False)
        sampled = F.grid_sample(images, fine, mode="bilinear", padding_mode="border", align_corners=False)
        aligned: Tensor = F.avg_pool2d(sampled, 2)
        return aligned

    def back(self, maps: Tensor, pose: Pose) -> tuple[Tensor, Tensor]:
        """Maps (b, h, w) of aligned pictures -> (b, h', w') in the pictures' own frame, OVERSAMPLING times finer.

        Also where the aligned picture does not reach, (b, h', w') bool: there the map's edges are continued. No value
        exceeds the map's maximum.
        """
        turned = _turn(-pose.angle) * self._scale(pose).transpose(1, 2)
        theta = torch.cat([turned, -(turned @ pose.centre.unsqueeze(2))], dim=2)
        size = [len(maps), 1, OVERSAMPLING * maps.shape[1], OVERSAMPLING * maps.shape[2]]
        grid = F.affine_grid(theta, size, align_corners=False)
        moved = F.grid_sample(maps.unsqueeze(1), grid, mode="bilinear", padding_mode="border", align_corners=False)
        outside = (grid.abs() > 1).any(dim=3)  # (b, h', w')
        lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        # Weights add up to one only nearly, hence the clamp. A fault must stay one even where nothing samples it.
        located = moved.squeeze(1).clamp(lowest, highest) + 0 * highest
        return located, outside

    def _scale(self, pose: Pose) -> Tensor:
        """The two scales as a row, (1, 1, 2)."""
        # Filled in on the device: numbers that are copied to a GPU make it wait, and cannot be part of a graph.
        scales = self.config.along, self.config.across
        return torch.cat([pose.centre.new_full((1, 1, 1), scale) for scale in scales], dim=2)


def part_mask(batch: Tensor, keep: Tensor | None = None) -> Tensor:
    """What differs from the border of pictures (b, 3, S, S), (b, t, t) bool on a thumbnail, t < 224.

    Each pixel's colour distance from the border's median, binarised by Otsu's threshold, specks removed. All false
    where the picture is one even colour, and where `keep` (h, w) is.
    """
    step = max(1, batch.shape[-1] // _THUMBNAIL)
    small = F.avg_pool2d(batch.float(), step)  # (b, 3, t, t)
    t = small.shape[-1]
    margin = max(1, t // _BORDER)
    seen = torch.ones(t, t, dtype=torch.bool, device=batch.device)
    if keep is not None:
        seen = F.interpolate(keep[None, None].float(), (t, t)).squeeze() > 0
    background = _median(_border(small, margin), _border(seen, margin))  # (b, 3)
    distance = torch.linalg.vector_norm(small - background[:, :, None, None], dim=1) * seen
    peak = distance.amax(dim=(1, 2), keepdim=True)
    levels = (distance / peak.clamp_min(_EVEN) * (_BINS - 1)).long()
    mask = (levels > _otsu(levels)[:, None, None]).float().unsqueeze(1)
    opened = F.max_pool2d(-F.max_pool2d(-mask, 3, 1, 1), 3, 1, 1)  # erosion, then dilation
    part: Tensor = (opened.squeeze(1) > 0.5) & (peak >= _EVEN)
    return part


def _border(images: Tensor, margin: int) -> Tensor:
    """What lies within `margin` of the edges of images (..., t, t): (..., n)."""
    rows, middle = (images[..., :margin, :], images[..., -margin:, :]), images[..., margin:-margin, :]
    columns = middle[..., :margin], middle[..., -margin:]
    return torch.cat([part.flatten(-2) for part in (*rows, *columns)], dim=-1)


def _median(values: Tensor, some: Tensor) -> Tensor:
    """The lower median of finite `values` (b, c, n) where `some` (n,) is true, and of all where it never is: (b, c).

    By sorting, not by picking: how many are picked only the device knows, and a GPU would be waited for.
    """
    counted = some | ~some.any()
    ordered = values.masked_fill(~counted, torch.inf).sort(dim=2).values
    middle = (counted.sum() - 1) // 2
    return ordered.index_select(2, middle.view(1)).squeeze(2)


def _otsu(levels: Tensor) -> Tensor:
    """The level (b,) that separates `levels` (b, h, w) into the two classes that lie furthest apart."""
    flat = levels.flatten(1)
    counts = torch.zeros(len(flat), _BINS, dtype=torch.float64, device=levels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    share = counts.cumsum(1) / flat.shape[1]
    weighted = counts * torch.arange(_BINS, dtype=torch.float64, device=levels.device)
    sums = weighted.cumsum(1) / flat.shape[1]
    between = (sums[:, -1:] * share - sums).square() / (share * (1 - share)).clamp_min(1e-12)
    return between.argmax(1)


def moments(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre (b, 2), angle (b,) of the longest axis, and reach (b, 2) of masks (b, t, t), all float32.

    In coordinates (x, y) of [-1, 1]; the angle points to the heavier tail (positive third moment). The reach is how
    far the mask extends from the centre along the axis and across it. Zeros for an empty mask.
    """
    t = mask.shape[-1]
    weight = mask.flatten(1).double()  # (b, t²): in double, so that devices agree on the direction
    line = (torch.arange(t, dtype=torch.float64, device=mask.device) * 2 + 1) / t - 1
    points = torch.stack([line.expand(t, t), line.unsqueeze(1).expand(t, t)]).flatten(1)  # (2, t²), x and y
    total = weight.sum(1, keepdim=True).clamp_min(1)
    centre = weight @ points.T / total  # (b, 2)
    offset = points - centre.unsqueeze(2)  # (b, 2, t²)
    xx, yy, xy = (
        (weight * product).sum(1) for product in (offset[:, 0] ** 2, offset[:, 1] ** 2, offset[:, 0] * offset[:, 1])
    )
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    along = offset[:, 0] * angle.cos().unsqueeze(1) + offset[:, 1] * angle.sin().unsqueeze(1)
    across = offset[:, 1] * angle.cos().unsqueeze(1) - offset[:, 0] * angle.sin().unsqueeze(1)
    backwards = (weight * along**3).sum(1) < 0
    angle = torch.where(backwards, angle + torch.pi, angle)
    reach = torch.stack([(weight * along.abs()).amax(1), (weight * across.abs()).amax(1)], dim=1)
    return centre.float(), angle.float(), reach.float()


def _turn(angle: Tensor) -> Tensor:
    """Rotations by angles (b,), (b, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)
