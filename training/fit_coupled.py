"""Learning the coupled-hypersphere scorer: centroids of the good images, and a descriptor drawn towards them.

CFA's training (see `models.coupled`): the bank, what the untrained descriptor makes of the mean patch at each
position, stays as it is; the descriptor learns to put every patch within a radius of its nearest centroids. The
backbone is frozen, its features extracted once. To bound the time on a CPU, a seeded sample of each image's
positions is seen at a step, and there are five folds at most for the out-of-sample maps: each is a descriptor.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from models.backbone import Grids
from models.coupled import Coupled, CoupledConfig, nearest, patches
from models.errors import RecipeError
from training.arrays import Indices
from training.distances import Distances
from training.features import Features
from training.fields import Count, Section
from training.folds import merged
from training.progress import Progress, Step

# As published.
_NU = 1e-3
_RADIUS = 1e-5
_MARGIN = 0.1
_REPELLED = 3
_WEIGHT_DECAY = 5e-4

_FOLDS = 5
_ROUNDS = 50  # of k-means, at most
_CLUSTERED = 4096  # points at a time
_SCORED = 16  # images at a time
_LARGEST = torch.finfo(torch.float16).max


class CoupledSection(Section):
    """CFA. `dimensions` bounds what the descriptor gives (no more than the fused channels) and `vectors` the bank
    (no more than the positions). It trains for `steps`, of `batch_size` images each, of which `positions` are seen.

    The steps are few on purpose: CFA's 30 epochs are 2,400 steps for 320 images, of which the authors' code keeps
    the epoch that is best on the test pictures. A `learned` radius is their code's too (see `hypersphere_loss`).
    """

    name: Literal["coupled"] = "coupled"
    dimensions: Annotated[int, Field(ge=1, le=4096)] = 448
    vectors: Annotated[int, Field(ge=6, le=2**18)] = 3136
    neighbours: Annotated[int, Field(ge=1, le=64)] = 3
    steps: Count = 64
    batch_size: Count = 4
    positions: Count = 196
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    radius: Literal["fixed", "learned"] = "fixed"

    def config(self, channels: Sequence[int], grids: Grids) -> CoupledConfig:
        """The scorer for levels of these `channels` and `grids` (height, width)."""
        height, width = grids[0]
        dimensions, vectors = min(self.dimensions, sum(channels)), min(self.vectors, height * width)
        return CoupledConfig(dimensions=dimensions, vectors=vectors, neighbours=self.neighbours)


def fit_coupled(
    scorer: Coupled,
    features: Features,
    section: CoupledSection,
    *,
    seed: int,
    folds: Indices | None,
    device: torch.device,
    progress: Progress,
) -> Distances:
    """Fill the scorer's buffers from `features`, and give the raw maps (n, h, w) of all images if there are `folds`.

    `folds` (n,) are merged to five at most; each image's out-of-sample map comes from a scorer that
    was fitted on the other folds, as the scorer itself was on all. Raises RecipeError where the loss is not finite, or
    the recipe's sizes do not fit.
    """
    groups = np.zeros(features.count, np.int64) if folds is None else _groups(folds, progress)
    sums = {group: _level_sums(features, np.flatnonzero(groups == group)) for group in np.unique(groups).tolist()}
    # The group that each fit leaves out; -1 is none of them, and that fit is the scorer itself.
    left_out = [-1] if folds is None else [-1, *sums]
    fitted = {out: copy.deepcopy(scorer).to(device) for out in left_out}
    with progress.step("descriptor", section.steps * len(fitted)) as step:
        for out, one in fitted.items():
            images = np.flatnonzero(groups != out)
            generator = torch.Generator().manual_seed(seed)  # each fit begins with the same descriptor
            _initialise(one, _means([levels for group, levels in sums.items() if group != out], len(images)), generator)
            samples = _draw(features, images, section, generator, device=device)
            _train(one, samples, section, step)
    scorer.load_state_dict(fitted[-1].state_dict())
    if folds is None:
        return Distances(in_sample=None, out_of_sample=None)
    return _distances(fitted, features, groups, progress)


def hypersphere_loss(distances: Tensor, radius: Tensor, *, neighbours: int) -> Tensor:
    """Coupled hyperspheres: squared distances (k, K + J), ascending, and the radius r () -> the loss ().

    (mean of max(0, D - r²) over the K nearest + mean of max(0, r² - D - α) over the J next) / ν, as CFA's code has
    it. While r² is below α, as the published r = 1e-5 is, the second term is zero: it is at work only where r is
    learned, and then r grows, until good patches lie on a sphere of that radius around their centroids.
    """
    attraction = (distances[:, :neighbours] - radius**2).clamp_min(0).mean()
    repulsion = (radius**2 - distances[:, neighbours:] - _MARGIN).clamp_min(0).mean()
    return (attraction + repulsion) / _NU


def cluster(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's k-means: points (p, d) -> `count` centres (count, d), from seeded points; all points if p = count.

    A centre that loses all its points stays where it is.
    """
    if count == len(points):
        return points
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    owner = torch.full((len(points),), -1)
    for _ in range(_ROUNDS):
        before = owner
        owner = torch.cat([torch.cdist(block, centres).argmin(dim=1) for block in points.split(_CLUSTERED)])
        if torch.equal(owner, before):
            break
        size = torch.bincount(owner, minlength=count).unsqueeze(1)  # (count, 1)
        mean = torch.zeros_like(centres).index_add_(0, owner, points) / size.clamp_min(1)
        centres = torch.where(size > 0, mean, centres)
    return centres


def _groups(folds: Indices, progress: Progress) -> Indices:
    groups, count = merged(folds, _FOLDS), len(np.unique(folds))
    if count > _FOLDS:
        progress.say(f"{count} folds are merged to {_FOLDS}: each is a descriptor to train.")
    if count == 1:
        raise RecipeError(
            f"All {len(folds)} images are in fold {folds[0]}: two folds at least are needed to score good images out "
            "of sample. Raise calibration.folds."
        )
    return groups


def _level_sums(features: Features, images: Indices) -> list[Tensor]:
    """Each level (c_i, h_i, w_i) summed over some images, float64."""
    sums: list[Tensor] = []
    for levels in features.batches(indices=images.tolist()):
        parts = [level.double().sum(dim=0) for level in levels]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    return sums


def _means(sums: Sequence[Sequence[Tensor]], count: int) -> list[Tensor]:
    """Mean levels, float32, of `count` images in groups with these sums."""
    return [(torch.stack(parts).sum(dim=0) / count).float() for parts in zip(*sums, strict=True)]


@torch.no_grad()
def _initialise(scorer: Coupled, means: Sequence[Tensor], generator: torch.Generator) -> None:
    """A random descriptor, and the bank that it makes of the mean levels [(c_i, h_i, w_i)].

    Pooling, joining and describing are linear, so this is the mean of the descriptions.
    """
    bound = 1 / math.sqrt(scorer.weight.shape[1])  # torch's own for a convolution
    for buffer in (scorer.weight, scorer.bias):
        buffer.copy_((torch.rand(buffer.shape, generator=generator) * 2 - 1) * bound)
    described = F.linear(patches([mean[None] for mean in means])[0], scorer.weight.cpu(), scorer.bias.cpu())  # (p, d')
    if not described.abs().max() < _LARGEST:  # nor is it where it is not a number
        raise RecipeError(
            f"The bank's vectors reach {described.abs().max():.3g}, more than half precision holds, or are not finite: "
            "look for features that are not finite, and at the backbone's weights."
        )
    # On the CPU: sums by index are not repeatable on CUDA.
    scorer.bank.copy_(cluster(described, len(scorer.bank), generator))


def _draw(
    features: Features,
    images: Indices,
    section: CoupledSection,
    generator: torch.Generator,
    *,
    device: torch.device,
) -> Iterator[Tensor]:
    """Endless patches (k, d + 2) of `positions` of each of `batch_size` images; each image once a round."""
    while True:
        order = torch.from_numpy(images)[torch.randperm(len(images), generator=generator)]
        for batch in order.split(section.batch_size):
            with torch.no_grad():
                seen = patches([level.to(device) for level in features.batch(batch.tolist())])  # (b, p, d + 2)
                b, p, _ = seen.shape
                chosen = torch.stack([torch.randperm(p, generator=generator)[: section.positions] for _ in range(b)])
                rows = torch.arange(b).unsqueeze(1)  # (b, 1)
                sample = seen[rows.to(device), chosen.to(device)].flatten(0, 1)
            yield sample


def _train(scorer: Coupled, samples: Iterator[Tensor], section: CoupledSection, step: Step) -> None:
    """Draw the descriptor towards the bank, in place."""
    looked_for = scorer.neighbours + _REPELLED
    if looked_for > len(scorer.bank):
        raise RecipeError(
            f"A bank of {len(scorer.bank)} vectors is too small for {scorer.neighbours} neighbours and {_REPELLED} "
            "more to keep away from: raise scorer.vectors or the image size, or lower scorer.neighbours."
        )
    bank = scorer.bank.float()
    weight, bias = scorer.weight.clone().requires_grad_(), scorer.bias.clone().requires_grad_()
    radius = torch.tensor(_RADIUS, device=bank.device, requires_grad=section.radius == "learned")
    learned = [tensor for tensor in (weight, bias, radius) if tensor.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=section.learning_rate, weight_decay=_WEIGHT_DECAY, amsgrad=True)
    for done, sample in zip(range(section.steps), samples, strict=False):
        distances = nearest(F.linear(sample, weight, bias), bank, looked_for)
        loss = hypersphere_loss(distances, radius, neighbours=scorer.neighbours)
        if not (shown := loss.item()) < math.inf:
            raise RecipeError(
                f"The descriptor's loss is {shown} at step {done + 1} of {section.steps}: lower scorer.learning_rate "
                f"(it is {section.learning_rate}), or look for features that are not finite."
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step.advance(f"loss {shown:.4g}")
    scorer.weight.copy_(weight.detach())
    scorer.bias.copy_(bias.detach())


@torch.inference_mode()
def _distances(fitted: dict[int, Coupled], features: Features, groups: Indices, progress: Progress) -> Distances:
    """Maps of all images under the scorer fitted on all of them, and under the one that left their group out."""
    scorer = fitted[-1]
    within, without = (torch.empty(features.count, *scorer.grid) for _ in range(2))
    with progress.step("distances", features.count) as step:
        for group in np.unique(groups).tolist():
            for images in torch.from_numpy(np.flatnonzero(groups == group)).split(_SCORED):
                levels = [level.to(scorer.bank.device) for level in features.batch(images.tolist())]
                within[images] = scorer(levels).cpu()
                without[images] = fitted[group](levels).cpu()
                step.advance(by=len(images))
    return Distances(in_sample=within, out_of_sample=without)
