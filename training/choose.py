"""Synthetic validation: whether a stage earns its place, without a single real defect.

Some good images are held out of the training of every stage. They get synthetic defects from draws that
training does not make; how well a candidate tells these from the good ones is the figure that decides.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.detector import Detector
from models.manifest import Choice
from training.metrics import image_auroc, pixel_auroc
from training.synthetic import Synthetic, Use

_STAGE_TEXT = {"jigsaw": "jigsaw fine-tuning", "fusion": "MFCSAM fusion"}


@dataclass(frozen=True)
class ValidationSet:
    """Held-out tiles (m, 3, s, s) uint8, good ones and defective ones, with masks (m, s, s) bool."""

    tiles: Tensor
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Figures:
    """Image and pixel AUROC on synthetic defects; `decisive` is their mean."""

    image_auroc: float
    pixel_auroc: float

    @property
    def decisive(self) -> float:
        """The one number that decides."""
        return (self.image_auroc + self.pixel_auroc) / 2


def make_validation_set(source: Synthetic, *, defects: int) -> ValidationSet:
    """Each tile of `source` once good and `defects` times with a synthetic defect."""
    good = source.tiles.images
    tiles, masks = [good], [np.zeros_like(source.tiles.foregrounds)]
    for draw in range(defects):
        for index in range(len(good)):
            tile, mask = source.draw(index, source.generator(Use.VALIDATION, epoch=draw, index=index))
            tiles.append(tile.unsqueeze(0))
            masks.append(mask[np.newaxis])
    return ValidationSet(torch.cat(tiles), np.concatenate(masks))


@torch.inference_mode()
def validate(detector: Detector, data: ValidationSet, *, device: torch.device, batch_size: int = 16) -> Figures:
    """Score the validation set with a fitted detector."""
    detections = [detector(batch.to(device)) for batch in data.tiles.split(batch_size)]
    scores = torch.cat([d.score for d in detections]).cpu().numpy()
    maps = torch.cat([d.map for d in detections]).cpu()
    size = data.tiles.shape[-2:]
    # The same bilinear interpolation as models.preprocess.locate, for a batch.
    located = torch.nn.functional.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False)
    image = image_auroc(scores, np.asarray(data.masks.any(axis=(1, 2))))
    pixel = pixel_auroc(located.squeeze(1).numpy(), data.masks)
    assert image is not None, "a validation set has good and defective tiles"
    assert pixel is not None, "a validation set has good and defective pixels"
    return Figures(image, pixel)


def decide(stage: Literal["jigsaw", "fusion"], without: Figures, with_: Figures, *, margin: float) -> Choice:
    """Keep the stage if the mean of both AUROCs is higher with it, by `margin` at least; a tie leaves it out."""
    kept = with_.decisive > without.decisive and with_.decisive >= without.decisive + margin
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
