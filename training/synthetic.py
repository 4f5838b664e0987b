"""Good tiles and their synthetic defects, drawn by index (seed, step 1.5): examples without labels.

All randomness comes from (seed, use, epoch, index): `use` keeps the draws of training and of validation
apart, so that no validation defect was seen in training.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.alignment import Alignment
from models.manifest import Kind
from training.defects import synthesise
from training.foreground import KindDecision, decide_kind, foreground_mask
from training.parallel import in_parallel
from training.scratch import scratch
from training.textures import Textures


class Use(IntEnum):
    """What a synthetic defect is drawn for."""

    JIGSAW = 1
    FUSION = 2
    VALIDATION = 3


@dataclass(frozen=True)
class Tiles:
    """Good pictures as they are taken, (n, 3, S, S) uint8, their foregrounds, (n, S, S) bool, and which count."""

    images: Tensor
    foregrounds: NDArray[np.bool_]
    chosen: tuple[int, ...] | None = None

    @classmethod
    def without_foregrounds(cls, images: Tensor) -> "Tiles":
        """Tiles that no defect will be drawn on."""
        return cls(images, np.broadcast_to(np.True_, (len(images), *images.shape[-2:])))

    def __len__(self) -> int:
        return len(self.images) if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, NDArray[np.bool_]]:
        place = index if self.chosen is None else self.chosen[index]
        return self.images[place], self.foregrounds[place]

    def subset(self, indices: Sequence[int]) -> "Tiles":
        """The tiles at `indices`, in that order; nothing is copied."""
        chosen = tuple(indices) if self.chosen is None else tuple(self.chosen[index] for index in indices)
        return Tiles(self.images, self.foregrounds, chosen)

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """The pictures, (b, 3, S, S) uint8 at a time."""
        places = torch.arange(len(self.images)) if self.chosen is None else torch.tensor(self.chosen)
        return (self.images[some] for some in places.split(size))


def kind_of(images: Tensor) -> KindDecision:
    """Whether pictures (n, 3, S, S) uint8 are of an object or of a texture, and why."""
    return decide_kind([image.permute(1, 2, 0).numpy() for image in images])


def make_tiles(images: Tensor, kind: Kind, *, folder: Path, ignored: NDArray[np.bool_] | None = None) -> Tiles:
    """Tiles with the foreground of each, which may lie in a file in `folder`; a texture is foreground everywhere.

    (Seed, step 1.3.) What is `ignored`, (S, S), is no foreground: no defect is drawn there.
    """
    foregrounds = scratch((len(images), *images.shape[-2:]), np.bool_, folder=folder)

    def look(index: int) -> None:
        mask = np.ones_like(foregrounds[index]) if kind == "texture" else foreground_mask(_to_picture(images[index]))
        if ignored is not None:
            mask = mask & ~ignored
        # A part that cannot be told from its background still gets defects: anywhere.
        mask = mask if mask.any() or ignored is None else ~ignored
        foregrounds[index] = mask if mask.any() else True

    deque(in_parallel(look, range(len(images)), device=torch.device("cpu")), maxlen=0)
    return Tiles(images, foregrounds)


@dataclass(frozen=True)
class Synthetic:
    """Draws synthetic defects onto tiles. With an `alignment`, examples are in the part's frame.

    `keep` is false where pictures are not looked at. `framed`, (n, 3, s, s) uint8, are the good tiles in the part's
    frame where they have been brought there once and for all; see `in_frame`.
    """

    tiles: Tiles
    textures: Textures
    seed: int
    alignment: Alignment | None = None
    keep: Tensor | None = None
    framed: Tensor | None = None

    def generator(self, use: Use, *, epoch: int, index: int) -> np.random.Generator:
        """The random generator of one example."""
        return np.random.default_rng([self.seed, use, epoch, index])

    def draw(self, index: int, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.bool_]]:
        """Tile `index` with a synthetic defect, (3, s, s) uint8, and the defect's mask, (s, s) bool."""
        image, foreground = self.tiles[index]
        defect = synthesise(_to_picture(image), np.asarray(foreground), self.textures, rng)
        return _to_tile(defect.image), defect.mask

    def good_batches(self, size: int = 32) -> Iterator[Tensor]:
        """The good tiles as the network sees them, (b, 3, s, s) uint8 at a time."""
        if self.framed is not None:
            yield from self.framed.split(size)
        elif self.alignment is None:
            yield from self.tiles.batches(size)
        else:
            for batch in self.tiles.batches(size):
                yield self.alignment(batch, self.keep)[0].round().to(torch.uint8)

    def example(self, position: int, use: Use, *, epoch: int) -> tuple[Tensor, NDArray[np.bool_], np.random.Generator]:
        """Example `position` of good tiles followed by as many synthetic ones (seed, step 1.5).

        Returns the tile, its defect mask (empty for a good one), and the generator for further draws.
        """
        rng = self.generator(use, epoch=epoch, index=position)
        index = position % len(self.tiles)
        if position >= len(self.tiles):
            return *self._aligned(*self.draw(index, rng)), rng
        good = self.tiles[index][0]
        if self.framed is not None:
            tile = self.framed[index]
        else:
            tile, _ = self._aligned(good, np.zeros(good.shape[1:], np.bool_))
        return tile, np.zeros(tile.shape[1:], np.bool_), rng

    def _aligned(self, tile: Tensor, mask: NDArray[np.bool_]) -> tuple[Tensor, NDArray[np.bool_]]:
        """A tile (3, S, S) uint8 and its mask in the part's own frame."""
        if self.alignment is None:
            return tile, mask
        pose = self.alignment.pose(tile.unsqueeze(0), self.keep)
        both = torch.cat([tile, torch.from_numpy(mask).to(torch.uint8).unsqueeze(0)])  # (4, S, S)
        aligned = self.alignment.align(both.unsqueeze(0).float(), pose)[0]  # (4, s, s): the grid is made once
        return aligned[:3].round().to(torch.uint8), np.asarray((aligned[3] >= 0.5).numpy())


def in_frame(source: Synthetic, *, folder: Path) -> Synthetic:
    """The same, its good tiles aligned once instead of in every epoch; they may lie in a file in `folder`."""
    if source.alignment is None:
        return source
    framed = scratch((len(source.tiles), 3, source.alignment.side, source.alignment.side), np.uint8, folder=folder)
    done = 0
    for batch in source.good_batches():
        framed[done : done + len(batch)] = batch.numpy()
        done += len(batch)
    return replace(source, framed=torch.from_numpy(framed))


def _to_picture(tile: Tensor) -> NDArray[np.uint8]:
    return np.asarray(cv2.merge(list(tile.numpy())), dtype=np.uint8)  # several times as fast as a transposed copy


def _to_tile(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()
