from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.errors import DatasetError, RecipeError
from models.mfcsam import concatenate
from models.pooling import pooled
from training import eigenpairs as module
from training import joining
from training.distances import Distances
from training.eigenpairs import leading
from training.features import Features
from training.fit_gaussian import fit_gaussian, moments_of, scan, shortened, whitening_of
from training.folds import assign_folds
from training.joining import Joining
from training.progress import Progress

CPU = torch.device("cpu")
EPSILON = 0.01
D = 12  # channels of `some_features`
SomeFeatures = Callable[..., Features]
Array = NDArray[np.float64]


def fitted(
    features: Features,
    *,
    rank: int = D,
    shrinkage: float = 0.3,
    pooling: int = 3,
    dimensions: int = D,
    folds: NDArray[np.int64] | None = None,
) -> tuple[CompactGaussian, Distances]:
    config = CompactGaussianConfig(dimensions=dimensions, rank=rank, shrinkage=shrinkage, pooling=pooling)
    scorer = CompactGaussian(config, features.channels, features.grids)
    progress = Progress.silent()
    return scorer, fit_gaussian(scorer, features, epsilon=EPSILON, folds=folds, device=CPU, progress=progress)


def embedded(features: Features, pooling: int) -> Array:
    """Y of all pictures, (p, n, d)."""
    y = concatenate(pooled(features.batch(range(features.count)), pooling)).flatten(2)
    return np.asarray(y.permute(2, 0, 1).double().numpy())


def covariances(y: Array) -> Array:
    offset = y - y.mean(1, keepdims=True)
    return np.asarray(offset.transpose(0, 2, 1) @ offset / max(y.shape[1] - 1, 1))


def dense_distances(y: Array, *, known: Array, average: Array, shrinkage: float) -> Array:
    """Of y (p, m, d) under Σ = (1-λ)S + λ(S̄ + εI), S and the mean being of `known` (p, n, d): (m, p), by numpy."""
    covariance = (1 - shrinkage) * covariances(known) + shrinkage * (average + EPSILON * np.eye(y.shape[2]))
    offset = y - known.mean(1, keepdims=True)
    solved = np.linalg.solve(covariance, offset.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.asarray(np.sqrt((offset * solved).sum(2)).T)


@pytest.mark.parametrize("n", [40, 13, 7, 2])
@pytest.mark.parametrize(("shrinkage", "pooling"), [(0.1, 3), (0.3, 1), (1.0, 3)])
def test_at_full_rank_it_is_the_dense_gaussian(
    some_features: SomeFeatures, n: int, shrinkage: float, pooling: int
) -> None:
    features = some_features(n)
    folds = assign_folds(n, 3, seed=0)
    scorer, distances = fitted(features, shrinkage=shrinkage, pooling=pooling, folds=folds)
    scorer.check()
    y = embedded(features, pooling)
    average = covariances(y).mean(0)
    assert distances.in_sample is not None
    # Directions in half precision: 1e-3 of ‖z‖², which λ divides.
    tolerance = 3e-3 / shrinkage
    exact = dense_distances(y, known=y, average=average, shrinkage=shrinkage)
    np.testing.assert_allclose(distances.in_sample.flatten(1), exact, rtol=tolerance, atol=tolerance)
    scored = scorer(features.batch(range(n)))
    torch.testing.assert_close(distances.in_sample, scored, rtol=tolerance, atol=tolerance)
    unseen = some_features(4, seed=5)
    exact = dense_distances(embedded(unseen, pooling), known=y, average=average, shrinkage=shrinkage)
    np.testing.assert_allclose(scorer(unseen.batch(range(4))).flatten(1), exact, rtol=tolerance)


@pytest.mark.parametrize(("n", "k"), [(40, 5), (12, 4), (7, 7), (5, 2), (2, 2)])
def test_cross_fitting_is_refitting_without_each_fold_the_whitening_included(
    some_features: SomeFeatures, n: int, k: int
) -> None:
    features, folds = some_features(n), assign_folds(n, k, seed=0)
    _, distances = fitted(features, folds=folds)
    y = embedded(features, 3)
    assert distances.out_of_sample is not None
    assert distances.out_of_sample.shape == (n, 8, 8)
    for fold in np.unique(folds):
        known = y[:, folds != fold]
        average = covariances(known).mean(0)
        exact = dense_distances(y[:, folds == fold], known=known, average=average, shrinkage=0.3)
        np.testing.assert_allclose(distances.out_of_sample[folds == fold].flatten(1), exact, rtol=3e-3)


def test_more_than_twenty_folds_are_merged(some_features: SomeFeatures) -> None:
    features = some_features(23)
    _, many = fitted(features, rank=4, folds=np.arange(23))
    _, merged = fitted(features, rank=4, folds=np.arange(23) % 20)
    assert many.out_of_sample is not None
    assert merged.out_of_sample is not None
    assert torch.equal(many.out_of_sample, merged.out_of_sample)


def test_moments_of_groups_add_up_to_those_of_all(some_features: SomeFeatures) -> None:
    joining = Joining(some_features(11), 3)
    groups = [np.array([3, 0, 7]), np.array([1, 2, 9, 10]), np.array([4, 5, 6, 8])]
    moments = moments_of(joining, groups, device=CPU, progress=Progress.silent())
    y = embedded(joining.features, 3)
    for chosen in ([0, 1, 2], [0, 2], [1]):
        known = y[:, np.concatenate([groups[group] for group in chosen])]
        np.testing.assert_allclose(moments.covariance(chosen), covariances(known).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shrinkage", [0.03, 0.3])
def test_corrections_make_up_for_half_precision(shrinkage: float) -> None:
    vectors = torch.linalg.qr(torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))).Q
    values = torch.tensor([[90.0, 3.0, 0.2, 0.0]]).expand(3, -1)
    directions, corrections = shortened(values, vectors, shrinkage)
    assert directions.dtype == torch.float16
    s = (1 - shrinkage) * values
    torch.testing.assert_close(directions.float().square().sum(1) * corrections, s / (s + shrinkage), rtol=1e-6, atol=0)
    assert (corrections[:, :3] != 1).any()
    assert (corrections[:, 3] == 1).all()  # a direction that there is not
    assert (corrections - 1).abs().max() < 2e-3


def test_a_picture_is_further_from_the_others_than_from_all(some_features: SomeFeatures) -> None:
    _, distances = fitted(some_features(30), rank=4, folds=assign_folds(30, 10, seed=0))
    assert distances.in_sample is not None
    assert distances.out_of_sample is not None
    assert distances.out_of_sample.mean() > 1.05 * distances.in_sample.mean()


def test_distances_are_made_only_where_they_are_wanted(some_features: SomeFeatures) -> None:
    features = some_features(9)
    with_, distances = fitted(features, rank=4, folds=assign_folds(9, 3, seed=0))
    without, nothing = fitted(features, rank=4)
    assert nothing == Distances(None, None)
    assert distances.in_sample is not None
    wanted = features.batch(range(9))  # sums are of folds, so the same but for rounding
    torch.testing.assert_close(with_(wanted), without(wanted), rtol=2e-3, atol=2e-3)


def test_a_subset_is_fitted_as_if_there_were_no_others(some_features: SomeFeatures) -> None:
    features, chosen = some_features(12), np.array([3, 11, 0, 5, 8])
    alone = Features(tuple(array[:, :, chosen].copy() for array in features.arrays))
    one, two = (fitted(part, rank=4)[0] for part in (features.subset(chosen), alone))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_fewer_dimensions_keep_the_narrowest_that_are_more_than_epsilon(
    some_features: SomeFeatures, epsilon: float
) -> None:
    joining = Joining(some_features(30), 3)
    covariance = moments_of(joining, [np.arange(30)], device=CPU, progress=Progress.silent()).covariance([0])
    whole, part = (whitening_of(covariance, epsilon=epsilon, dimensions=kept) for kept in (D, 4))
    assert torch.equal(whole[:, :4], part)
    average = torch.from_numpy(covariances(embedded(joining.features, 3)).mean(0)) + epsilon * torch.eye(D)
    torch.testing.assert_close((whole.T.double() @ average @ whole.double()).float(), torch.eye(D), rtol=0, atol=1e-4)
    variances = 1 / whole.square().sum(0)  # of the directions, in their order
    faint = variances < 2 * epsilon
    last = int(faint.sum())
    assert (last > 0) is (epsilon == 0.1)
    assert not faint[: D - last].any()
    assert bool((variances[: D - last].diff() > 0).all())
    assert bool((variances[D - last :].diff() < 0).all())


def test_the_block_size_changes_nothing(some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    features, folds = some_features(10), assign_folds(10, 3, seed=0)
    _, whole = fitted(features, rank=4, folds=folds)
    monkeypatch.setattr(joining, "_BLOCK_BYTES", 3 * 4 * 10 * D)
    _, blocks = fitted(features, rank=4, folds=folds)
    torch.testing.assert_close(blocks.in_sample, whole.in_sample, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(blocks.out_of_sample, whole.out_of_sample, rtol=2e-3, atol=2e-3)


def centred(n: int, k: int, *, seed: int = 0) -> torch.Tensor:
    """(3, n, k) with directions of which each is three quarters as wide as the one before."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(3, k, k, generator=generator)).Q
    z = torch.randn(3, n, k, generator=generator) * 0.75 ** torch.arange(k) @ turned
    return z - z.mean(1, keepdim=True)


@pytest.mark.parametrize("exact", [512, 4], ids=["decomposed", "iterated"])
@pytest.mark.parametrize(("n", "k"), [(80, 30), (30, 30), (30, 80)])
def test_leading_directions_are_those_of_the_singular_values(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, exact: int
) -> None:
    monkeypatch.setattr(module, "_EXACT", exact)
    z, rank = centred(n, k), 5
    values, vectors = leading(z, rank)
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    singular = torch.linalg.svd(z.double())
    torch.testing.assert_close(values, (singular.S[:, :rank].square() / (n - 1)).float(), rtol=1e-3, atol=0)
    aligned = (vectors.double().transpose(1, 2) @ singular.Vh[:, :rank].transpose(1, 2)).abs()
    torch.testing.assert_close(aligned, torch.eye(rank, dtype=torch.float64).expand(3, -1, -1), rtol=0, atol=5e-3)


def test_iterating_gives_the_same_numbers_each_time_and_touches_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EXACT", 4)
    z = centred(40, 40)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = leading(z, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    for left, right in zip(one, leading(z, 5), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(("n", "k", "rank", "directions"), [(4, 9, 6, 3), (9, 4, 6, 4), (2, 9, 2, 1), (1, 3, 2, 0)])
def test_directions_that_there_are_not_are_zero(n: int, k: int, rank: int, directions: int) -> None:
    values, vectors = leading(centred(n, k), rank)
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    assert bool((values[:, :directions] > 0).all())
    assert values[:, directions:].abs().max() < 1e-6
    if n <= k:
        assert not vectors[..., directions:].any()


def test_iterated_directions_score_as_exact_ones(some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    features = some_features(60, channels=(8, 12, 16))
    folds = assign_folds(60, 4, seed=0)
    scorer, exact = fitted(features, rank=3, dimensions=36, folds=folds)
    monkeypatch.setattr(module, "_EXACT", 8)
    # More rounds than in production: this noise has no directions that stand out.
    monkeypatch.setattr(module, "_ITERATIONS", 16)
    other, iterated = fitted(features, rank=3, dimensions=36, folds=folds)
    assert not torch.equal(other.directions, scorer.directions)
    for mine, theirs in ((iterated.in_sample, exact.in_sample), (iterated.out_of_sample, exact.out_of_sample)):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0)


@pytest.mark.parametrize("pooling", [1, 3])
def test_scanning_settings_is_fitting_each_and_scoring(some_features: SomeFeatures, pooling: int) -> None:
    features = some_features(20)
    known, asked = np.array([0, 19, 4, 7, 2, 11, 13, 6, 3]), np.array([1, 5, 10])
    settings = [(0.1, 6), (0.3, 6), (0.3, 2), (1.0, 1)]
    maps = scan(
        features,
        known=known,
        asked=asked,
        pooling=pooling,
        settings=settings,
        epsilon=EPSILON,
        dimensions=D,
        device=CPU,
        progress=Progress.silent(),
    )
    assert maps.shape == (4, 3, 8, 8)
    for (shrinkage, rank), scanned in zip(settings, maps, strict=True):
        scorer, _ = fitted(features.subset(known), rank=rank, shrinkage=shrinkage, pooling=pooling)
        torch.testing.assert_close(scanned, scorer(features.batch(asked)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(some_features: SomeFeatures, value: float) -> None:
    features = some_features(6)
    features.arrays[1][2, 1, 3, 0] = value
    with pytest.raises(RecipeError, match=r"not finite: .*--weights"):
        fitted(features, rank=3)


def test_pictures_that_do_not_differ_are_refused(some_features: SomeFeatures) -> None:
    features = some_features(5)
    for array in features.arrays:
        array[:] = 1
    with pytest.raises(DatasetError, match="do not differ from each other"):
        fitted(features, rank=3)
    fitted(features, rank=3, shrinkage=1.0)  # which knows no directions anyway
