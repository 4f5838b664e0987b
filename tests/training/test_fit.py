from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbone import Architecture, channels, grids
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.coupled import Coupled, CoupledConfig
from models.detector import Scorer, build_scorer
from models.gaussian import DenseGaussian, DenseGaussianConfig
from models.memory_bank import MemoryBank, MemoryBankConfig
from training.features import Features
from training.fit import Fitter
from training.fit_coupled import CoupledSection
from training.fit_dense import DenseGaussianSection
from training.fit_gaussian import GaussianSection
from training.fit_memory_bank import MemoryBankSection
from training.folds import assign_folds
from training.progress import Progress
from training.recipe import ScorerSection

ARCH: Architecture = "mobilenet_v2"
SIDE = 32  # 152 channels, 8 x 8 positions
CHANNELS, GRIDS = channels(ARCH), grids(SIDE)
GAUSSIAN = GaussianSection(rank=4, shrinkage=0.3, pooling=3)
DENSE = DenseGaussianSection(channels=10)
BANK = MemoryBankSection(share=0.05, projection=8)
COUPLED = CoupledSection(dimensions=6, vectors=20, steps=2, positions=16)
SECTIONS = (GAUSSIAN, DENSE, BANK, COUPLED)
SCORERS: dict[ScorerSection, type[Scorer]] = {
    GAUSSIAN: CompactGaussian,
    DENSE: DenseGaussian,
    BANK: MemoryBank,
    COUPLED: Coupled,
}


def fitter(section: ScorerSection) -> Fitter:
    return Fitter(section, ARCH, SIDE, 0, torch.device("cpu"), Progress.silent())


def name(section: ScorerSection) -> str:
    return section.name


@pytest.fixture(scope="module")
def features(some_features: Callable[..., Features]) -> Features:
    return some_features(12, channels=CHANNELS, grids=GRIDS)


@pytest.mark.parametrize("section", SECTIONS, ids=name)
def test_each_section_gets_its_scorer_and_that_is_fitted(section: ScorerSection, features: Features) -> None:
    scorer = build_scorer(fitter(section).first(12), CHANNELS, SIDE)
    assert type(scorer) is SCORERS[section]
    distances = fitter(section).fit(scorer, features, folds=assign_folds(12, 3, seed=0))
    scorer.check()
    assert distances.in_sample is not None
    assert distances.out_of_sample is not None
    assert distances.in_sample.shape == distances.out_of_sample.shape == (12, *scorer.grid)
    scored = scorer(features.batch(range(12)))
    torch.testing.assert_close(distances.in_sample, scored, rtol=0.02, atol=0.02)
    assert not torch.equal(distances.out_of_sample, distances.in_sample)


@pytest.mark.parametrize("section", SECTIONS, ids=name)
def test_without_folds_there_are_no_distances_and_the_same_scorer(section: ScorerSection, features: Features) -> None:
    with_, without = (build_scorer(fitter(section).first(12), CHANNELS, SIDE) for _ in range(2))
    fitter(section).fit(with_, features, folds=assign_folds(12, 3, seed=0))
    distances = fitter(section).fit(without, features, folds=None)
    assert (distances.in_sample, distances.out_of_sample) == (None, None)
    for tensor, other in zip(with_.state_dict().values(), without.state_dict().values(), strict=True):
        assert tensor.shape == other.shape
    some = features.batch(range(4))
    torch.testing.assert_close(with_(some), without(some), rtol=5e-3, atol=5e-3)  # sums of folds round otherwise


@pytest.mark.parametrize("section", SECTIONS, ids=name)
def test_a_trial_is_what_a_fit_to_those_that_are_known_says(section: ScorerSection, features: Features) -> None:
    known, asked = np.array([9, 0, 4, 5, 1, 8, 2]), np.array([3, 11])
    ((config, maps),) = fitter(section).trials(features, known=known, asked=asked)
    assert config == fitter(section).first(7)
    alone = replace(features, levels=tuple(level[:, :, known] for level in features.levels))
    scorer = build_scorer(config, CHANNELS, SIDE)
    fitter(section).fit(scorer, alone, folds=None)
    expected = scorer(features.batch(asked))
    assert maps.shape == (2, *scorer.grid)
    torch.testing.assert_close(maps, expected, rtol=5e-3, atol=5e-3)
    assert not torch.allclose(maps, scorer(features.batch([0, 4])), rtol=0.05)


def test_trials_go_through_every_combination_of_the_gaussians(features: Features) -> None:
    section = GaussianSection(rank=(4, 2), shrinkage=(0.1, 0.3), pooling=(3, 1))
    known, asked = np.arange(8), np.arange(8, 12)
    trials = list(fitter(section).trials(features, known=known, asked=asked))
    assert len(trials) == fitter(section).settings() == 8
    configs = [config for config, _ in trials]
    assert configs[0] == fitter(section).first(8)
    assert {(c.pooling, c.shrinkage, c.rank) for c in configs if isinstance(c, CompactGaussianConfig)} == {
        (pooling, shrinkage, rank) for pooling in (1, 3) for shrinkage in (0.1, 0.3) for rank in (2, 4)
    }
    for config, maps in trials:
        assert isinstance(config, CompactGaussianConfig)
        one = GaussianSection(rank=config.rank, shrinkage=config.shrinkage, pooling=config.pooling)
        ((same, expected),) = fitter(one).trials(features, known=known, asked=asked)
        assert same == config
        torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("section", "config"),
    [
        (GAUSSIAN, CompactGaussianConfig(dimensions=152, rank=4, shrinkage=0.3, pooling=3)),
        (
            GaussianSection(rank=500, shrinkage=0.3, pooling=1),
            CompactGaussianConfig(dimensions=152, rank=152, shrinkage=0.3, pooling=1),
        ),
        (
            GaussianSection(rank=500, shrinkage=0.3, pooling=1, dimensions=0.25),
            CompactGaussianConfig(dimensions=38, rank=38, shrinkage=0.3, pooling=1),
        ),
        (DENSE, DenseGaussianConfig(channels=10)),
        (DenseGaussianSection(channels=550), DenseGaussianConfig(channels=152)),
        (BANK, MemoryBankConfig(vectors=10)),  # a twentieth of 12 pictures of 4 x 4 patches
        (CoupledSection(vectors=1000, dimensions=400), CoupledConfig(dimensions=152, vectors=64, neighbours=3)),
    ],
)
def test_sizes_follow_from_the_network_and_the_pictures(section: ScorerSection, config: object) -> None:
    assert fitter(section).first(12) == config
    assert fitter(section).settings() == 1


def test_ranks_that_come_to_the_same_are_tried_once() -> None:
    section = GaussianSection(rank=(500, 152, 3), shrinkage=0.3, pooling=1)
    assert fitter(section).settings() == 2


def test_a_scorer_of_another_kind_is_refused(features: Features) -> None:
    scorer = build_scorer(fitter(DENSE).first(12), CHANNELS, SIDE)
    with pytest.raises(TypeError, match="DenseGaussian is not what the section 'coupled' describes"):
        fitter(COUPLED).fit(scorer, features, folds=None)
