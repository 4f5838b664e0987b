"""The levels of many pictures, extracted once, in memory if they are few and else on disk (`training.scratch`).

They lie position by position: level l is (h_l, w_l, n, c_l), so that a fit reads all pictures at a few positions as one
piece, in the type in which they were computed. Scorers that look at whole pictures get them in batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.alignment import Pose
from models.backbone import Grids, Levels
from models.detector import Detector
from training.arrays import Indices
from training.progress import Progress
from training.scratch import scratch_tensor


@dataclass(frozen=True)
class Features:
    """Three levels (h_l, w_l, n, c_l), as `training.scratch` gives them, and the pictures among them that count.

    `folder` is where more may lie of what memory does not hold.
    """

    levels: tuple[Tensor, ...]
    folder: Path
    chosen: Indices | None = None

    @property
    def count(self) -> int:
        """How many pictures."""
        return self.levels[0].shape[2] if self.chosen is None else len(self.chosen)

    def subset(self, indices: Indices) -> "Features":
        """Some of the pictures, in that order; the levels are the same."""
        return replace(self, chosen=self.places(indices))

    def places(self, indices: Indices) -> Indices:
        """Where the pictures at `indices` lie in the levels."""
        return indices if self.chosen is None else self.chosen[indices]

    @property
    def dtype(self) -> torch.dtype:
        """What they were computed in."""
        return self.levels[0].dtype

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels of each level."""
        first, second, third = (level.shape[3] for level in self.levels)
        return first, second, third

    @property
    def grids(self) -> Grids:
        """(height, width) of each level."""
        first, second, third = ((level.shape[0], level.shape[1]) for level in self.levels)
        return first, second, third

    def batch(self, indices: Sequence[int] | Indices) -> Levels:
        """The levels of some pictures, (m, c_l, h_l, w_l) float32 each."""
        wanted = torch.tensor(self.places(np.asarray(indices)))
        first, second, third = (level[:, :, wanted].permute(2, 3, 0, 1).float().contiguous() for level in self.levels)
        return first, second, third

    def batches(self, size: int = 16, indices: Sequence[int] | Indices | None = None) -> Iterator[Levels]:
        """The levels of all pictures, or of those at `indices`, `size` at a time."""
        wanted = np.arange(self.count) if indices is None else np.asarray(indices)
        for start in range(0, len(wanted), size):
            yield self.batch(wanted[start : start + size])


@torch.inference_mode()
def extract(
    detector: Detector,
    batches: Iterable[Tensor],
    *,
    count: int,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> tuple[Features, Pose | None]:
    """The levels of `count` pictures, in batches (b, 3, S, S) uint8, as `detector` on `device` sees them.

    Where they lie is for `training.scratch` to say. Also the poses of the parts, on the CPU, if the detector
    aligns them. Raises RecipeError where there is no room.
    """
    rooms: list[Tensor] = []
    poses: list[Pose] = []
    done = 0
    with progress.step("features", count) as step:
        for batch in batches:
            levels, pose = detector.levels(batch.to(device))
            if pose is not None:
                poses.append(Pose(*(part.cpu() for part in pose)))
            if not rooms:
                rooms = [scratch_tensor((*x.shape[2:], count, x.shape[1]), x.dtype, folder=folder) for x in levels]
            for room, level in zip(rooms, levels, strict=True):
                room[:, :, done : done + len(batch)].copy_(level.permute(2, 3, 0, 1))
            done += len(batch)
            step.advance(by=len(batch))
    whole = Pose(*(torch.cat(part) for part in zip(*poses, strict=True))) if poses else None
    return Features(tuple(rooms), folder), whole
