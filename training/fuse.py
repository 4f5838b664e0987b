"""Weights for the fusion (seed, step 5.1), which does not say how they are trained.

Ours: with the backbone frozen, a linear head on the fused feature Y tells the pixels of synthetic defects
from good ones. The head is dropped afterwards.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Architecture, Backbone, channels
from models.mfcsam import AnyFusion, concatenate
from models.preprocess import Preprocess, PreprocessConfig
from models.tiling import cut, stitch
from training.half_precision import bfloat16_on_cpu
from training.loop import Devices, Loss, train
from training.progress import Progress
from training.recipe import FusionSection
from training.synthetic import Synthetic, Use


class PixelClassifier(nn.Module):
    """Pictures (b, 3, S, S) uint8 -> logits (b, h, w) of being part of a defect, on the first level's grid."""

    def __init__(self, preprocess: Preprocess, backbone: Backbone, fusion: AnyFusion, fused_channels: int) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.fusion = fusion
        self.head = nn.Conv2d(fused_channels, 1, kernel_size=1)

    def forward(self, batch: Tensor) -> Tensor:
        """The class says it."""
        tiles = self.preprocess.config.tiles
        with torch.no_grad(), bfloat16_on_cpu():
            levels = [level.float() for level in self.backbone(self.preprocess(cut(batch, tiles)))]
        logits: Tensor = self.head(concatenate(stitch(self.fusion(*levels), tiles)))
        return logits.squeeze(1)


class FusionTask:
    """Tells `training.loop` how to train the fusion."""

    name = "fusion"

    def __init__(
        self,
        fusion: AnyFusion,
        backbone: Backbone,
        arch: Architecture,
        source: Synthetic,
        *,
        preprocess: PreprocessConfig,
    ) -> None:
        backbone.requires_grad_(False)
        self.module = PixelClassifier(Preprocess(preprocess), backbone, fusion, sum(channels(arch)))
        self.trained = nn.ModuleDict({"fusion": fusion, "head": self.module.head})
        self.size = 2 * len(source.tiles)
        self._source = source

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
        """Tiles (b, 3, s, s) uint8 and their defect masks (b, s, s) bool."""
        examples = [self._source.example(position, Use.FUSION, epoch=epoch) for position in indices]
        masks = np.stack([mask for _, mask, _ in examples])
        return torch.stack([tile for tile, _, _ in examples]), torch.from_numpy(masks)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
        """Cross-entropy per position, good and defective positions of the batch weighted alike."""
        tiles, masks = batch
        logits = module(tiles)  # (b, h, w)
        truth = F.adaptive_avg_pool2d(masks.unsqueeze(1).float(), logits.shape[-2:]).squeeze(
            1
        )  # share of defect pixels
        weight = truth / truth.sum().clamp_min(1.0) + (1 - truth) / (1 - truth).sum().clamp_min(1.0)
        value = F.binary_cross_entropy_with_logits(logits, truth, weight=weight, reduction="sum") / 2
        hits = ((logits > 0) == (truth > 0.5)).float()
        return Loss(value, (hits * weight).sum() / weight.sum())

    def parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """The fusion and the head."""
        return [{"params": list(self.trained.parameters()), "lr": learning_rate}]

    def set_modes(self) -> None:
        """The backbone is frozen, its batch norm included."""
        self.module.train()
        self.module.backbone.eval()


def train_fusion(
    fusion: AnyFusion,
    backbone: Backbone,
    arch: Architecture,
    source: Synthetic,
    *,
    preprocess: PreprocessConfig,
    section: FusionSection,
    devices: Devices,
    checkpoint: Path,
    progress: Progress,
) -> list[float]:
    """Train `fusion` in place and leave it in eval mode; returns the loss of each epoch."""
    task = FusionTask(fusion, backbone, arch, source, preprocess=preprocess)
    losses = train(task, section.schedule, seed=source.seed, devices=devices, checkpoint=checkpoint, progress=progress)
    task.module.cpu()
    fusion.eval().requires_grad_(False)
    return losses
