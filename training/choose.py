"""Synthetic validation: what earns its place, without a single real defect.

Some good images are held out of all training. They get synthetic defects from draws that training does not make;
how well a candidate tells these from the good ones is the figure that decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.detector import ScorerConfig
from models.manifest import Choice
from training.metrics import image_auroc, pixel_auroc
from training.synthetic import Synthetic, Tiles, Use

_STAGE_TEXT = {"jigsaw": "jigsaw fine-tuning", "fusion": "MFCSAM fusion"}


@dataclass(frozen=True)
class ValidationSet:
    """Held-out tiles (m, 3, S, S) uint8, good ones and defective ones, with masks (m, S, S) bool."""

    tiles: Tensor
    masks: NDArray[np.bool_]

    def truth(self, grid: tuple[int, int]) -> NDArray[np.bool_]:
        """The masks on a map's grid, (m, h, w): cells of which half is defective, or of a small defect the most."""
        share = F.adaptive_avg_pool2d(torch.from_numpy(self.masks).float(), grid)
        most = share.amax(dim=(1, 2), keepdim=True)
        return np.asarray(((share >= 0.5) | ((share == most) & (most > 0))).numpy())


@dataclass(frozen=True)
class Figures:
    """Image and pixel AUROC on synthetic defects; `decisive` is their mean."""

    image_auroc: float
    pixel_auroc: float

    @property
    def decisive(self) -> float:
        """The one number that decides."""
        return (self.image_auroc + self.pixel_auroc) / 2


@dataclass(frozen=True)
class Candidate:
    """A scorer with a smoothing (in pixels of the network's input), and what they are worth."""

    scorer: ScorerConfig
    smoothing: float
    figures: Figures

    @property
    def label(self) -> str:
        """The settings in words."""
        settings = self.scorer.model_dump(exclude={"name", "dimensions", "vectors", "levels", "neighbours", "channels"})
        return ", ".join(f"{name} {value:g}" for name, value in {**settings, "smoothing": self.smoothing}.items())


def hold_out(tiles: Tiles, *, share: float, most: int, seed: int) -> tuple[Tiles, Tiles]:
    """The tiles to learn from, and `share` of them, 2 at least and `most` at most, that are held out."""
    order = np.random.default_rng([seed, len(tiles)]).permutation(len(tiles)).tolist()
    count = max(2, min(round(share * len(tiles)), most))
    return tiles.subset(sorted(order[count:])), tiles.subset(sorted(order[:count]))


def make_validation_set(source: Synthetic, *, defects: int) -> ValidationSet:
    """Each tile of `source` once good and `defects` times with a synthetic defect."""
    good = [source.tiles[index] for index in range(len(source.tiles))]
    drawn = [(tile, np.zeros(foreground.shape, np.bool_)) for tile, foreground in good]
    for draw in range(defects):
        for index in range(len(source.tiles)):
            drawn.append(source.draw(index, source.generator(Use.VALIDATION, epoch=draw, index=index)))
    return ValidationSet(torch.stack([tile for tile, _ in drawn]), np.stack([mask for _, mask in drawn]))


def figures_of(maps: Tensor, truth: NDArray[np.bool_]) -> Figures:
    """What maps (m, h, w), smooth and in the tiles' own frame, are worth; `truth` is the masks on their grid."""
    image = image_auroc(maps.flatten(1).amax(1).numpy(), np.asarray(truth.any(axis=(1, 2))))
    pixel = pixel_auroc(maps.numpy(), truth)
    assert image is not None, "a validation set has good and defective tiles"
    assert pixel is not None, "a validation set has good and defective cells"
    return Figures(image, pixel)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest decisive figure; of equals the first."""
    return max(candidates, key=lambda candidate: candidate.figures.decisive)


def decide(stage: Literal["jigsaw", "fusion"], without: Figures, with_: Figures, *, margin: float) -> Choice:
    """Keep the stage if the mean of both AUROCs is higher with it, by `margin` at least; a tie leaves it out."""
    kept = gains(without, with_, margin=margin)
    verb = "raises" if kept else f"does not raise (by {margin:g} at least)"
    return Choice(
        stage=stage,
        kept=kept,
        reason=(
            f"{_STAGE_TEXT[stage]} {verb} the mean AUROC on synthetic defects in held-out good images: "
            f"{without.decisive:.4f} without, {with_.decisive:.4f} with"
        ),
        figures={
            "image_auroc_without": without.image_auroc,
            "image_auroc_with": with_.image_auroc,
            "pixel_auroc_without": without.pixel_auroc,
            "pixel_auroc_with": with_.pixel_auroc,
        },
    )


def gains(without: Figures, with_: Figures, *, margin: float) -> bool:
    """Whether the decisive figure is higher with something, by `margin` at least."""
    return with_.decisive > without.decisive and with_.decisive >= without.decisive + margin
