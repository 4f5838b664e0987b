"""Which scorer a recipe's section means, how it is fitted, and what its settings are worth on pictures not seen.

The scorers share nothing but what is here: a section of the recipe becomes a configuration, and that a fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from models.backbone import Architecture, channels, grids
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.coupled import Coupled
from models.detector import Scorer, ScorerConfig, build_scorer
from models.gaussian import DenseGaussian, DenseGaussianConfig
from models.memory_bank import MemoryBank
from training.arrays import Indices
from training.distances import Distances
from training.features import Features
from training.fit_coupled import CoupledSection, fit_coupled
from training.fit_dense import DenseGaussianSection, fit_dense
from training.fit_gaussian import GaussianSection, fit_gaussian, scan
from training.fit_memory_bank import MemoryBankSection, fit_memory_bank
from training.progress import Progress
from training.recipe import ScorerSection


class _Places(TypedDict):
    """What every fit takes."""

    folds: Indices | None
    device: torch.device
    progress: Progress


@dataclass(frozen=True)
class Fitter:
    """Fits the scorer of `section` for levels of `arch` on pictures of `side` pixels."""

    section: ScorerSection
    arch: Architecture
    side: int
    seed: int
    device: torch.device
    progress: Progress

    def first(self, images: int) -> ScorerConfig:
        """The scorer for that many pictures; of several settings the first."""
        return self._configs(images)[0]

    def settings(self) -> int:
        """How many settings of the scorer there are to choose from."""
        return len(self._configs(images=2))

    def fit(self, scorer: Scorer, features: Features, *, folds: Indices | None) -> Distances:
        """Fill the scorer's buffers; distances if `folds` (n,) says how to come by unseen pictures, else none."""
        section, places = self.section, _Places(folds=folds, device=self.device, progress=self.progress)
        match scorer, section:
            case CompactGaussian(), GaussianSection():
                return fit_gaussian(scorer, features, epsilon=section.epsilon, **places)
            case DenseGaussian(), DenseGaussianSection():
                return fit_dense(scorer, features, epsilon=section.epsilon, seed=self.seed, **places)
            case MemoryBank(), MemoryBankSection():
                return fit_memory_bank(scorer, features, section, seed=self.seed, **places)
            case Coupled(), CoupledSection():
                return fit_coupled(scorer, features, section, seed=self.seed, **places)
        raise TypeError(f"a {type(scorer).__name__} is not what the section '{section.name}' describes")

    def trials(self, features: Features, *, known: Indices, asked: Indices) -> Iterator[tuple[ScorerConfig, Tensor]]:
        """For every setting, the raw maps (m, h, w) of the pictures at `asked` under a fit to those at `known`."""
        if isinstance(self.section, GaussianSection):
            yield from self._scanned(features, known=known, asked=asked)
            return
        config = self.first(len(known))
        scorer = build_scorer(config, channels(self.arch), self.side)
        self.fit(scorer, features.subset(known), folds=None)
        scorer.to(self.device)
        with torch.inference_mode():  # of the scoring alone: some scorers are trained by gradients
            maps = [
                scorer(tuple(level.to(self.device) for level in levels)).cpu()
                for levels in features.batches(indices=asked)
            ]
        yield config, torch.cat(maps)

    def _scanned(self, features: Features, *, known: Indices, asked: Indices) -> Iterator[tuple[ScorerConfig, Tensor]]:
        section = self.section
        assert isinstance(section, GaussianSection), "the others have no settings to scan"
        configs = [config for config in self._configs(len(known)) if isinstance(config, CompactGaussianConfig)]
        for pooling in section.pooling:
            wanted = [config for config in configs if config.pooling == pooling]
            trials = scan(
                features,
                known=known,
                asked=asked,
                pooling=pooling,
                settings=[(config.shrinkage, config.rank) for config in wanted],
                epsilon=section.epsilon,
                dimensions=wanted[0].dimensions,
                device=self.device,
                progress=self.progress,
            )
            yield from zip(wanted, trials, strict=True)

    def _configs(self, images: int) -> list[ScorerConfig]:
        section, level_channels = self.section, channels(self.arch)
        match section:
            case GaussianSection():
                dimensions = max(1, round(section.dimensions * sum(level_channels)))
                ranks = dict.fromkeys(min(rank, dimensions) for rank in section.rank)
                return [
                    CompactGaussianConfig(dimensions=dimensions, rank=rank, shrinkage=shrinkage, pooling=pooling)
                    for pooling in section.pooling
                    for shrinkage in section.shrinkage
                    for rank in ranks
                ]
            case DenseGaussianSection():
                return [DenseGaussianConfig(channels=min(section.channels, sum(level_channels)))]
            case MemoryBankSection():
                return [section.config(images, grids(self.side))]
            case CoupledSection():
                return [section.config(level_channels, grids(self.side))]
