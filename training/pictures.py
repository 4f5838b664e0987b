"""The good pictures of a run, read as the network takes them, into a file where they are many."""

import hashlib
from collections.abc import Sequence
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
_COPIES_NAMED = 3
_SHAPE = 0.05  # ratios of the edges that differ by less, relatively, are one shape
_SQUARE = 0.02  # edges that differ by less, relatively, are equal


class Pictures:
    """Good pictures at `paths`; what is read of them may lie in files in `folder`.

    Of pictures that are the same, to the last pixel that a network sees, only the first is read: a copy of what a fit
    knows scores low though it is left out, and so a threshold would come out that rejects most good parts.
    """

    def __init__(self, paths: Sequence[Path], folder: Path, progress: Progress) -> None:
        self.paths = list(paths)  # without copies, once they are read
        self._given = len(paths)
        self._copies: list[tuple[Path, Path]] = []  # and what they are copies of
        self._folder = folder
        self._progress = progress
        self._sizes: set[tuple[int, int]] = set()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first picture. DatasetError if it cannot be read."""
        height, width = read_image(self.paths[0]).shape[:2]
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

    @property
    def copies(self) -> str | None:
        """A warning where pictures were left out for being copies."""
        if not self._copies:
            return None
        named = [_told_apart(path, first) for path, first in self._copies[:_COPIES_NAMED]]
        more = ", ..." if len(self._copies) > _COPIES_NAMED else ""
        return (
            f"pictures that are copies of others were left out, {len(self._copies)} of {self._given} "
            f"({', '.join(named)}{more}): they would make the threshold too low. Give each part's picture once"
        )

    def read(self, preprocess: Preprocess) -> Tensor:
        """All that differ as (n, 3, S, S) uint8. DatasetError names those that cannot be used."""
        side = preprocess.config.taken
        images = scratch((len(self.paths), 3, side, side), np.uint8, folder=self._folder)
        unusable = []
        different: dict[bytes, Path] = {}  # by what they hold
        with self._progress.step("reading images", len(self.paths)) as step:
            for path, read in zip(self.paths, read_ahead(partial(_read, preprocess), self.paths), strict=True):
                if isinstance(read, DatasetError):
                    unusable.append(str(read))
                else:
                    self._sizes.add(read.size)
                    tile = read.tile.numpy()
                    key = hashlib.sha256(tile.tobytes()).digest()
                    if key in different:
                        self._copies.append((path, different[key]))
                    else:
                        images[len(different)] = tile
                        different[key] = path
                step.advance()
        if unusable:
            more = f" (and {len(unusable) - _NAMED} more)" if len(unusable) > _NAMED else ""
            raise DatasetError(
                f"{len(unusable)} of {len(self.paths)} pictures cannot be used; mend or remove them: "
                + " | ".join(unusable[:_NAMED])
                + more
            )
        if len(different) == 1 < len(images):
            raise DatasetError(
                f"All {len(images)} pictures are the same. Give pictures of different good parts: how far these differ "
                "is what is learnt."
            )
        check_depth(self.paths)
        self.paths = list(different.values())
        return torch.from_numpy(images[: len(different)])


def _told_apart(copy: Path, first: Path) -> str:
    """What a picture is a copy of, in as few words as tell both apart."""
    if copy == first:
        return f"{copy} is given twice"
    return f"{copy.name} is {first.name}" if copy.name != first.name else f"{copy} is {first}"


def _read(preprocess: Preprocess, path: Path) -> Taken | DatasetError:
    """A picture, or why it cannot be used: the others are still read, so that all that are wrong are told at once."""
    try:
        return read_taken(path, preprocess)
    except DatasetError as error:
        return error
