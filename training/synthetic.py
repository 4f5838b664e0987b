"""Good tiles and their synthetic defects, drawn by index (seed, step 1.5): examples without labels.

All randomness comes from (seed, use, epoch, index): `use` keeps the draws of training and of validation
apart, so that no validation defect was seen in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.manifest import Kind
from training.defects import synthesise
from training.foreground import foreground_mask
from training.textures import Textures


class Use(IntEnum):
    """What a synthetic defect is drawn for."""

    JIGSAW = 1
    FUSION = 2
    VALIDATION = 3


@dataclass(frozen=True)
class Tiles:
    """Good pictures as the network sees them, (n, 3, s, s) uint8, and their foregrounds, (n, s, s) bool."""

    images: Tensor
    foregrounds: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> "Tiles":
        """The tiles at `indices`, in that order."""
        return Tiles(self.images[list(indices)], self.foregrounds[list(indices)])


def make_tiles(images: Tensor, kind: Kind) -> Tiles:
    """Tiles with the foreground of each; a texture is foreground everywhere (seed, step 1.3)."""
    size = images.shape[-2:]
    if kind == "texture":
        return Tiles(images, np.ones((len(images), *size), np.bool_))
    masks = [foreground_mask(_to_picture(image)) for image in images]
    # A part that cannot be told from its background still gets defects: anywhere.
    return Tiles(images, np.stack([mask if mask.any() else np.ones_like(mask) for mask in masks]))


@dataclass(frozen=True)
class Synthetic:
    """Draws synthetic defects onto tiles."""

    tiles: Tiles
    textures: Textures
    seed: int

    def generator(self, use: Use, *, epoch: int, index: int) -> np.random.Generator:
        """The random generator of one example."""
        return np.random.default_rng([self.seed, use, epoch, index])

    def draw(self, index: int, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.bool_]]:
        """Tile `index` with a synthetic defect, (3, s, s) uint8, and the defect's mask, (s, s) bool."""
        picture = _to_picture(self.tiles.images[index])
        defect = synthesise(picture, self.tiles.foregrounds[index], self.textures, rng)
        return _to_tile(defect.image), defect.mask

    def example(self, position: int, use: Use, *, epoch: int) -> tuple[Tensor, NDArray[np.bool_], np.random.Generator]:
        """Example `position` of good tiles followed by as many synthetic ones (seed, step 1.5).

        Returns the tile, its defect mask (empty for a good one), and the generator for further draws.
        """
        rng = self.generator(use, epoch=epoch, index=position)
        index = position % len(self.tiles)
        if position < len(self.tiles):
            return self.tiles.images[index], np.zeros_like(self.tiles.foregrounds[index]), rng
        tile, mask = self.draw(index, rng)
        return tile, mask, rng


def _to_picture(tile: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(tile.permute(1, 2, 0).numpy())


def _to_tile(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()
