"""Jigsaw fine-tuning of the backbone (seed, steps 2 and 3).

Good and synthetic tiles are cut, reordered by one of K permutations, and the network is trained to say which.

Batch norm: a category has a few hundred pictures, shuffled ones at that, so a pretrained network keeps its
statistics (its scales and shifts are trained). A network that starts from nothing has none worth keeping: it
trains with those of the batch, and afterwards they are estimated anew on whole, unshuffled good tiles.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Architecture, Backbone, channels
from models.jigsaw import JigsawClassifier, permutations, shuffle
from models.preprocess import Preprocess, PreprocessConfig
from training.batch_norm import estimate_batch_norm, freeze_batch_norm
from training.half_precision import bfloat16_on_cpu
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
        for layer in _up_to_level(backbone, section.frozen_levels):
            layer.requires_grad_(False)
        classifier = JigsawClassifier(backbone, channels(arch)[-1], section.permutations)
        self.module = nn.Sequential(Preprocess(preprocess), classifier)
        self.trained = self.module
        self.size = 2 * len(source.tiles)
        self._backbone = backbone
        self._source = source
        self._pretrained = pretrained
        self._head, self._head_learning_rate = classifier.head, section.head_learning_rate
        self._size, self._tiled = preprocess.image_size, preprocess.tiles > 1

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
        """Shuffled tiles (b, 3, s, s) uint8 and the index of each one's permutation (b,)."""
        tiles, labels = [], []
        for position in indices:
            tile, _, rng = self._source.example(position, Use.JIGSAW, epoch=epoch)
            tiles.append(tile)
            labels.append(int(rng.integers(len(self.orders))))
        chosen = torch.tensor(labels)
        pictures = torch.stack(tiles)
        if self._tiled:  # the jigsaw is about the whole part, at the size that the network sees
            pictures = F.interpolate(pictures, (self._size, self._size), mode="bilinear", antialias=True)
        return shuffle(pictures, self.orders[chosen]), chosen

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
        """Cross-entropy over the K permutations."""
        tiles, labels = batch
        with bfloat16_on_cpu():
            logits = module(tiles).float()
        return Loss(F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean())

    def parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """The backbone's layers that are not frozen, and the classifier on top at a rate of its own."""
        backbone = [parameter for parameter in self._backbone.parameters() if parameter.requires_grad]
        head = list(self._head.parameters())
        return [
            {"params": backbone, "lr": learning_rate},
            {"params": head, "lr": self._head_learning_rate},
        ]

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
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    task = JigsawTask(backbone, arch, source, preprocess=preprocess, section=section, pretrained=pretrained)
    losses = train(task, section.schedule, seed=source.seed, devices=devices, checkpoint=checkpoint, progress=progress)
    backbone.cpu()
    _blend(backbone, before, share=section.blend)
    if not pretrained:
        estimate_batch_norm(backbone, source.good_batches(), preprocess)
    backbone.eval().requires_grad_(False)
    return losses


def _up_to_level(backbone: Backbone, count: int) -> list[nn.Module]:
    """The layers that the first `count` levels are made of."""
    if count == 0:
        return []
    names = list(backbone)
    return [backbone[name] for name in names[: names.index(backbone.ends[count - 1]) + 1]]


@torch.no_grad()
def _blend(backbone: Backbone, before: dict[str, Tensor], *, share: float) -> None:
    """Average the weights with those before tuning (Wortsman et al., CVPR 2022), in place: the features drift less."""
    for name, tensor in backbone.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(before[name], 1 - share)
