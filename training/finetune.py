"""Jigsaw fine-tuning of the backbone (seed, steps 2 and 3).

Good and synthetic tiles are cut, reordered by one of K permutations, and the network is trained to say which.

Batch norm: a category has a few hundred pictures, shuffled ones at that, so a pretrained network keeps its
statistics (its scales and shifts are trained). A network that starts from nothing has none worth keeping: it
trains with those of the batch, and afterwards they are estimated anew on whole, unshuffled good tiles.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Architecture, Backbone, channels
from models.jigsaw import JigsawClassifier, permutations, shuffle
from models.preprocess import Preprocess, PreprocessConfig
from training.batch_norm import estimate_batch_norm, freeze_batch_norm
from training.loop import Devices, Loss, train
from training.progress import Progress
from training.recipe import JigsawSection
from training.synthetic import Synthetic, Use


class JigsawTask:
    """Tells `training.loop` how to train the jigsaw."""

    name = "jigsaw"

    def __init__(
        self,
        backbone: Backbone,
        arch: Architecture,
        source: Synthetic,
        *,
        preprocess: PreprocessConfig,
        section: JigsawSection,
        pretrained: bool,
    ) -> None:
        self.orders = permutations(section.tiles, section.permutations, seed=source.seed)
        backbone.requires_grad_(True)  # it may come frozen from another stage
        classifier = JigsawClassifier(backbone, channels(arch)[-1], section.permutations)
        self.module = nn.Sequential(Preprocess(preprocess), classifier)
        self.trained = self.module
        self.size = 2 * len(source.tiles)
        self._backbone = backbone
        self._source = source
        self._pretrained = pretrained

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
        """Shuffled tiles (b, 3, s, s) uint8 and the index of each one's permutation (b,)."""
        tiles, labels = [], []
        for position in indices:
            tile, _, rng = self._source.example(position, Use.JIGSAW, epoch=epoch)
            tiles.append(tile)
            labels.append(int(rng.integers(len(self.orders))))
        chosen = torch.tensor(labels)
        return shuffle(torch.stack(tiles), self.orders[chosen]), chosen

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
        """Cross-entropy over the K permutations."""
        tiles, labels = batch
        logits = module(tiles)
        return Loss(F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean())

    def set_modes(self) -> None:
        """Everything trains, but for the batch norm statistics of a pretrained network."""
        self.module.train()
        if self._pretrained:
            freeze_batch_norm(self._backbone)


def finetune(
    backbone: Backbone,
    arch: Architecture,
    source: Synthetic,
    *,
    preprocess: PreprocessConfig,
    section: JigsawSection,
    pretrained: bool,
    devices: Devices,
    checkpoint: Path,
    progress: Progress,
) -> list[float]:
    """Fine-tune `backbone` in place and leave it in eval mode; returns the loss of each epoch."""
    task = JigsawTask(backbone, arch, source, preprocess=preprocess, section=section, pretrained=pretrained)
    losses = train(task, section.schedule, seed=source.seed, devices=devices, checkpoint=checkpoint, progress=progress)
    backbone.cpu()
    if not pretrained:
        estimate_batch_norm(backbone, source.tiles.images, preprocess)
    backbone.eval().requires_grad_(False)
    return losses
