"""The levels of many pictures on disk, extracted once, so that memory does not grow with their number.

Arrays lie position by position: level l is (h_l, w_l, n, c_l) float32, so that a fit reads all pictures at a few
positions as one piece. Scorers that look at whole pictures get them in batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.alignment import Pose
from models.backbone import Grids, Levels
from models.detector import Detector
from training.arrays import Indices
from training.progress import Progress
from training.scratch import scratch


@dataclass(frozen=True)
class Features:
    """Three arrays (h_l, w_l, n, c_l) float32, mapped to files, and the pictures among them that count.

    `computed` is what they were computed in, `folder` where more may lie of what memory does not hold.
    """

    arrays: tuple[NDArray[np.float32], ...]
    folder: Path
    computed: torch.dtype = torch.float32
    chosen: Indices | None = None

    @property
    def count(self) -> int:
        """How many pictures."""
        return int(self.arrays[0].shape[2]) if self.chosen is None else len(self.chosen)

    def subset(self, indices: Indices) -> "Features":
        """Some of the pictures, in that order; the arrays are the same."""
        return replace(self, chosen=self.places(indices))

    def places(self, indices: Indices) -> Indices:
        """Where the pictures at `indices` lie in the arrays."""
        return indices if self.chosen is None else self.chosen[indices]

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels of each level."""
        first, second, third = (int(array.shape[3]) for array in self.arrays)
        return first, second, third

    @property
    def grids(self) -> Grids:
        """(height, width) of each level."""
        first, second, third = ((int(array.shape[0]), int(array.shape[1])) for array in self.arrays)
        return first, second, third

    def batch(self, indices: Sequence[int] | Indices) -> Levels:
        """The levels of some pictures, (m, c_l, h_l, w_l) float32 each."""
        wanted = self.places(np.asarray(indices))
        first, second, third = (
            torch.from_numpy(array[:, :, wanted]).permute(2, 3, 0, 1).contiguous() for array in self.arrays
        )
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

    They lie in files in `folder` that vanish with them. Also the poses of the parts, on the CPU, if the detector
    aligns them. Raises RecipeError where there is no room.
    """
    arrays: list[NDArray[np.float32]] = []
    poses: list[Pose] = []
    done, computed = 0, torch.float32
    with progress.step("features", count) as step:
        for batch in batches:
            levels, pose = detector.levels(batch.to(device))
            computed = levels[0].dtype
            if pose is not None:
                poses.append(Pose(*(part.cpu() for part in pose)))
            if not arrays:
                arrays = [scratch((*x.shape[2:], count, x.shape[1]), np.float32, folder=folder) for x in levels]
            for array, level in zip(arrays, levels, strict=True):
                # Not by numpy, which has one thread for it (docs/log.md).
                torch.from_numpy(array)[:, :, done : done + len(batch)].copy_(level.permute(2, 3, 0, 1))
            done += len(batch)
            step.advance(by=len(batch))
    whole = Pose(*(torch.cat(part) for part in zip(*poses, strict=True))) if poses else None
    return Features(tuple(arrays), folder, computed), whole
