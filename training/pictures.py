"""The good pictures of a run, read as the network takes them, into a file rather than into memory."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.errors import DatasetError
from models.preprocess import Preprocess
from models.taken import Taken
from training.ahead import read_ahead
from training.picture_files import check_depth, read_image, read_taken
from training.progress import Progress
from training.scratch import scratch

_NAMED = 10  # unusable pictures in one message
_SHAPE = 0.05  # ratios of the edges that differ by less, relatively, are one shape
_SQUARE = 0.02  # edges that differ by less, relatively, are equal


class Pictures:
    """Good pictures at `paths`; what is read of them lies in files in `folder`."""

    def __init__(self, paths: list[Path], folder: Path, progress: Progress) -> None:
        self._paths = paths
        self._folder = folder
        self._progress = progress
        self._sizes: set[tuple[int, int]] = set()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first picture. DatasetError if it cannot be read."""
        height, width = read_image(self._paths[0]).shape[:2]
        return height, width

    @property
    def square(self) -> bool:
        """Whether all pictures that were read are square, or nearly."""
        return all(abs(height - width) <= _SQUARE * max(height, width) for height, width in self._sizes)

    @property
    def odd_shapes(self) -> str | None:
        """A warning where pictures of different shapes were read: squashed to one, the same part looks different."""
        ratios = sorted(width / height for height, width in self._sizes)
        if not ratios or ratios[-1] <= ratios[0] * (1 + _SHAPE):
            return None
        sizes = ", ".join(f"{width}x{height}" for height, width in sorted(self._sizes)[:5])
        return (
            f"the pictures are of different shapes ({sizes}): squashed to one square, parts look different in each. "
            "Give those that your camera takes"
        )

    def read(self, preprocess: Preprocess) -> Tensor:
        """All pictures as (n, 3, S, S) uint8, mapped to a file. DatasetError names those that cannot be used."""
        side = preprocess.config.taken
        images = scratch((len(self._paths), 3, side, side), np.uint8, folder=self._folder)
        unusable = []
        with self._progress.step("reading images", len(self._paths)) as step:
            for image, read in zip(images, read_ahead(partial(_read, preprocess), self._paths), strict=True):
                if isinstance(read, DatasetError):
                    unusable.append(str(read))
                else:
                    self._sizes.add(read.size)
                    image[:] = read.tile.numpy()
                step.advance()
        if unusable:
            more = f" (and {len(unusable) - _NAMED} more)" if len(unusable) > _NAMED else ""
            raise DatasetError(
                f"{len(unusable)} of {len(self._paths)} pictures cannot be used; mend or remove them: "
                + " | ".join(unusable[:_NAMED])
                + more
            )
        if len(images) > 1 and all(np.array_equal(image, images[0]) for image in images[1:]):
            raise DatasetError(
                f"All {len(images)} pictures are the same. Give pictures of different good parts: how far these differ "
                "is what is learnt."
            )
        check_depth(self._paths)
        return torch.from_numpy(images)


def _read(preprocess: Preprocess, path: Path) -> Taken | DatasetError:
    """A picture, or why it cannot be used: the others are still read, so that all that are wrong are told at once."""
    try:
        return read_taken(path, preprocess)
    except DatasetError as error:
        return error
