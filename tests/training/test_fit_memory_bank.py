"""The memory bank's fit: what is in it, and the distances of images it holds patches of."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.backbone import Levels
from models.errors import RecipeError
from models.memory_bank import MemoryBank
from training import fit_memory_bank as module
from training.coreset import k_center
from training.distances import Distances
from training.features import Features
from training.fit_memory_bank import MemoryBankSection, fit_memory_bank
from training.progress import Progress

CHANNELS = (4, 6, 10)
GRIDS = ((16, 16), (8, 8), (4, 4))
N = 20
FOLDS = np.zeros(N, np.int64)


class Held:
    """Features in memory rather than in a file."""

    channels, grids = CHANNELS, GRIDS

    def __init__(self, levels: Sequence[Tensor]) -> None:
        self._levels = levels
        self.count = len(levels[0])

    def batches(self, size: int = 16, indices: Sequence[int] | None = None) -> Iterator[Levels]:
        for part in torch.arange(self.count)[slice(None) if indices is None else list(indices)].split(size):
            yield cast(Levels, tuple(level[part] for level in self._levels))


def good_levels(n: int = N, *, seed: int = 0) -> list[Tensor]:
    """Images that resemble each other: a common picture and noise of their own."""
    generator = torch.Generator().manual_seed(seed)
    common = [
        torch.randn(1, c, *g, generator=torch.Generator().manual_seed(9)) for c, g in zip(CHANNELS, GRIDS, strict=True)
    ]
    return [level + 0.5 * torch.randn(n, *level.shape[1:], generator=generator) for level in common]


def fit(
    pictures: Sequence[Tensor], *, seed: int = 0, folds: object = FOLDS, **fields: object
) -> tuple[MemoryBank, Distances]:
    section = MemoryBankSection.model_validate({"share": 0.2, **fields})
    scorer = MemoryBank(section.config(len(pictures[0]), GRIDS), CHANNELS, GRIDS)
    distances = fit_memory_bank(
        scorer,
        cast(Features, Held(pictures)),
        section,
        seed=seed,
        folds=cast(np.ndarray | None, folds),
        device=torch.device("cpu"),
        progress=Progress.silent(),
    )
    return scorer, distances


def sources(scorer: MemoryBank, levels: Sequence[Tensor]) -> Tensor:
    """The image that each vector of the bank is a patch of, by its value."""
    y = scorer.embed(levels).half()  # (n, p, d)
    return torch.stack([(y == vector).all(dim=2).any(dim=1).nonzero()[0, 0] for vector in scorer.vectors])


def test_bank_holds_that_share_of_the_good_patches_in_the_images_order() -> None:
    levels = good_levels()
    scorer, _ = fit(levels)
    assert len(scorer.vectors) == round(0.2 * N * 64)
    assert len(scorer.vectors.unique(dim=0)) == len(scorer.vectors)
    of = sources(scorer, levels)
    assert torch.equal(of, of.sort().values)
    assert len(of.unique()) == N
    scorer.check()


def test_bank_covers_the_patches_better_than_a_random_one() -> None:
    levels = good_levels()
    scorer, _ = fit(levels, neighbours=1, share=0.05)
    y = scorer.embed(levels).flatten(0, 1)
    farthest = scorer(levels).max()
    for seed in range(5):
        drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[: len(scorer.vectors)]
        scorer.vectors.copy_(y[drawn])
        assert scorer(levels).max() > farthest


@pytest.mark.parametrize("neighbours", [1, 9])
def test_in_sample_distances_are_the_scorers_own(neighbours: int) -> None:
    levels = good_levels()
    scorer, distances = fit(levels, neighbours=neighbours)
    assert distances.in_sample is not None
    assert distances.in_sample.dtype == torch.float32
    assert torch.allclose(distances.in_sample, scorer(levels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 9])
def test_out_of_sample_distances_are_those_of_a_bank_without_the_images_vectors(neighbours: int) -> None:
    levels = good_levels()
    scorer, distances = fit(levels, neighbours=neighbours)
    assert distances.out_of_sample is not None
    of = sources(scorer, levels)
    for image in (0, 7, N - 1):
        less = scorer.vectors[of != image]
        config = scorer.config.model_copy(update={"vectors": len(less)})
        other = MemoryBank(config, CHANNELS, GRIDS)
        other.vectors.copy_(less)
        expected = other([level[image : image + 1] for level in levels])[0]
        assert torch.allclose(distances.out_of_sample[image], expected, rtol=1e-4, atol=1e-6)


def test_out_of_sample_scores_are_like_those_of_unseen_good_parts() -> None:
    scorer, distances = fit(good_levels())
    assert distances.in_sample is not None
    assert distances.out_of_sample is not None
    unseen = scorer(good_levels(50, seed=1)).flatten(1).amax(dim=1).mean()
    assert distances.out_of_sample.flatten(1).amax(dim=1).mean() == pytest.approx(float(unseen), rel=0.05)
    assert distances.in_sample.flatten(1).amax(dim=1).mean() < 0.95 * unseen


def test_an_image_that_gave_no_vector_has_the_same_distances_in_and_out_of_sample() -> None:
    levels = good_levels()
    for level in levels:
        level[5] = level[4]  # once one of the two is in the bank, the other is at no distance
    scorer, distances = fit(levels, projection=16, share=0.02)
    assert distances.in_sample is not None
    assert distances.out_of_sample is not None
    absent = sorted(set(range(N)) - set(sources(scorer, levels).tolist()))
    assert absent
    assert torch.equal(distances.in_sample[absent], distances.out_of_sample[absent])


def test_no_distances_without_folds() -> None:
    assert fit(good_levels(), folds=None)[1] == Distances(in_sample=None, out_of_sample=None)


def test_the_seed_decides_everything() -> None:
    levels = good_levels()
    first, again, other = (fit(levels, seed=seed, folds=None, projection=4)[0].vectors for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("projection", [3, 16, 1000])
def test_vectors_are_whole_patches_whatever_the_projection(projection: int) -> None:
    levels = good_levels()
    scorer, _ = fit(levels, projection=projection, folds=None)
    patches = scorer.embed(levels).flatten(0, 1).half()
    assert all((patches == vector).all(dim=1).any() for vector in scorer.vectors)


def test_few_patches_of_each_image_are_looked_at_where_all_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POINT_BYTES", N * 5 * 16 * 4)
    levels = good_levels()
    scorer, distances = fit(levels, share=0.07, projection=16)  # 90 of the 100 that are left
    assert torch.bincount(sources(scorer, levels), minlength=N).max() == 5
    assert distances.out_of_sample is not None
    assert distances.out_of_sample.isfinite().all()


def test_all_levels_may_be_chosen() -> None:
    scorer, distances = fit(good_levels(), levels=(1, 2, 3), share=0.02)
    assert scorer.vectors.shape == (round(0.02 * N * 256), 20)
    assert distances.out_of_sample is not None
    assert distances.out_of_sample.shape == (N, 16, 16)


def test_features_too_large_for_half_precision_are_refused() -> None:
    with pytest.raises(RecipeError, match="too large for the memory bank's half precision"):
        fit([level * 1e6 for level in good_levels()])


def test_a_bank_of_one_image_alone_is_refused() -> None:
    levels = [torch.zeros_like(level) for level in good_levels(2)]
    levels[1][0, :, :4, :4] = torch.arange(16.0).view(4, 4)
    drawn = next(seed for seed in range(20) if int(k_center(torch.zeros(128, 1), 1, seed=seed)) < 64)
    with pytest.raises(RecipeError, match="All 2 vectors of the memory bank come from one image"):
        fit(levels, share=1e-3, seed=drawn)


def test_size_follows_from_the_images_and_is_bounded() -> None:
    section = MemoryBankSection()
    grids = ((56, 56), (28, 28), (14, 14))
    assert section.config(100, grids).vectors == 7840
    assert section.config(5000, grids).vectors == section.max_vectors
    assert MemoryBankSection(levels=(1, 2)).config(10, grids).vectors == 3136
    assert MemoryBankSection(share=1e-9).config(10, grids).vectors == 2


@pytest.mark.parametrize("wrong", [{"share": 0}, {"levels": [3, 2]}, {"max_vectors": 10**6}, {"sharing": 1}])
def test_section_refuses_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MemoryBankSection.model_validate(wrong)
