from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import RecipeError
from models.gaussian import DenseGaussian, DenseGaussianConfig, select_channels, unpack_lower
from training import joining
from training.distances import Distances
from training.features import Features
from training.fit_dense import fit_dense
from training.folds import assign_folds
from training.progress import Progress

EPSILON = 0.01
GRIDS = ((4, 4), (2, 2), (1, 1))
SomeFeatures = Callable[..., Features]
Array = NDArray[np.float64]
Folds = NDArray[np.int64]


def one_by_one(n: int) -> Folds:
    return np.arange(n)


def fitted(features: Features, d: int, *, folds: Folds | None) -> tuple[DenseGaussian, Distances]:
    scorer = DenseGaussian(DenseGaussianConfig(channels=d), features.channels, features.grids)
    device, progress = torch.device("cpu"), Progress.silent()
    return scorer, fit_dense(scorer, features, epsilon=EPSILON, seed=3, folds=folds, device=device, progress=progress)


def distances_of(features: Features, d: int, *, folds: Folds) -> tuple[Array, Array]:
    """In sample and out of sample, (n, p)."""
    _, distances = fitted(features, d, folds=folds)
    assert distances.in_sample is not None
    assert distances.out_of_sample is not None
    n = features.count
    assert distances.in_sample.shape == distances.out_of_sample.shape == (n, *features.grids[0])
    return distances.in_sample.view(n, -1).double().numpy(), distances.out_of_sample.view(n, -1).double().numpy()


def embedded(features: Features, d: int) -> Array:
    """What a scorer of `d` channels sees, (n, p, d)."""
    scorer, _ = fitted(features, d, folds=None)
    return np.asarray(scorer.embed(features.batch(range(features.count))).double().numpy())


def refit(good: Array, epsilon: float) -> tuple[Array, Array]:
    """Mean (p, d) and covariance (p, d, d) of (n, p, d), by numpy."""
    n, p, d = good.shape
    covariance = np.zeros((p, d, d))
    if n > 1:
        covariance = np.stack([np.atleast_2d(np.cov(good[:, i], rowvar=False)) for i in range(p)])
    return good.mean(0), covariance + epsilon * np.eye(d)


def mahalanobis(y: Array, mean: Array, covariance: Array) -> Array:
    """(n, p), by numpy."""
    offset = y - mean
    return np.asarray(np.sqrt(np.einsum("npd,npd->np", offset, np.linalg.solve(covariance, offset[..., None])[..., 0])))


def refits(y: Array, folds: Folds, epsilon: Callable[[int], float]) -> Array:
    """Each image under the Gaussian of the other folds, fitted anew; `epsilon` of the number of others."""
    out = np.empty(y.shape[:2])
    for fold in np.unique(folds):
        others = y[folds != fold]
        out[folds == fold] = mahalanobis(y[folds == fold], *refit(others, epsilon(len(others))))
    return out


SHAPES = [(40, 8), (12, 12), (9, 11), (3, 5), (2, 5), (60, 1)]


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_mean_and_covariance_are_numpys(some_features: SomeFeatures, n: int, d: int) -> None:
    features = some_features(n, grids=GRIDS)
    scorer, _ = fitted(features, d, folds=None)
    y = embedded(features, d)
    mean, covariance = refit(y, EPSILON)
    np.testing.assert_allclose(scorer.mean, mean, rtol=1e-5)
    whitening = unpack_lower(scorer.whitening, d).double().numpy()
    np.testing.assert_allclose(whitening @ covariance @ whitening.transpose(0, 2, 1), [np.eye(d)] * 16, atol=2e-4)
    in_sample, _ = distances_of(features, d, folds=one_by_one(n))
    np.testing.assert_allclose(in_sample, mahalanobis(y, mean, covariance), rtol=1e-4)
    scored = scorer(features.batch(range(n))).flatten(1)
    np.testing.assert_allclose(in_sample, scored, rtol=1e-3, atol=1e-4)
    scorer.check()


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_leaving_one_out_is_refitting_without_each_image(some_features: SomeFeatures, n: int, d: int) -> None:
    features = some_features(n, grids=GRIDS)
    _, out_of_sample = distances_of(features, d, folds=one_by_one(n))
    # The closed form keeps (n-1)ε in the sum of squares, which the others divide by n - 2.
    exact = refits(embedded(features, d), one_by_one(n), lambda others: EPSILON * (n - 1) / max(others - 1, 1))
    np.testing.assert_allclose(out_of_sample, exact, rtol=1e-4)


def test_the_scaling_of_epsilon_hardly_shows(some_features: SomeFeatures) -> None:
    features = some_features(40, channels=(20, 20, 20), grids=GRIDS)
    _, out_of_sample = distances_of(features, 60, folds=one_by_one(40))
    exact = refits(embedded(features, 60), one_by_one(40), lambda _others: EPSILON)
    np.testing.assert_allclose(out_of_sample, exact, rtol=0.5 / 38)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_leaving_one_out_holds_where_channels_outnumber_images(some_features: SomeFeatures, scale: float) -> None:
    # In sample, every image then lies at about the same distance: what tells them apart is in the last digits.
    features = some_features(20, channels=(20, 30, 30), grids=GRIDS)
    large = replace(features, levels=tuple(level * scale for level in features.levels))
    in_sample, out_of_sample = distances_of(large, 80, folds=one_by_one(20))
    np.testing.assert_allclose(in_sample, np.sqrt(19 * 19 / 20), rtol=0.01)
    exact = refits(embedded(large, 80), one_by_one(20), lambda others: EPSILON * 19 / (others - 1))
    np.testing.assert_allclose(out_of_sample, exact, rtol=1e-3)


@pytest.mark.parametrize(("n", "k"), [(12, 4), (13, 4), (9, 2), (3, 2)])
def test_cross_fitting_is_refitting_without_each_fold(some_features: SomeFeatures, n: int, k: int) -> None:
    features, folds = some_features(n, grids=GRIDS), assign_folds(n, k, seed=0)
    _, out_of_sample = distances_of(features, 7, folds=folds)
    exact = refits(embedded(features, 7), folds, lambda _others: EPSILON)
    np.testing.assert_allclose(out_of_sample, exact, rtol=1e-4)


def test_where_most_are_one_by_one_those_that_share_a_fold_are_left_out_together(some_features: SomeFeatures) -> None:
    features, folds = some_features(30, grids=GRIDS), one_by_one(30)
    folds[[4, 9, 17]] = 4
    _, out_of_sample = distances_of(features, 7, folds=folds)
    _, alone = distances_of(features, 7, folds=one_by_one(30))
    exact = refits(embedded(features, 7), folds, lambda _others: EPSILON)
    together = folds == 4
    np.testing.assert_allclose(out_of_sample[together], exact[together], rtol=1e-4)
    assert np.array_equal(out_of_sample[~together], alone[~together])


def test_what_is_not_out_of_sample_does_not_depend_on_folds(some_features: SomeFeatures) -> None:
    features = some_features(12, grids=GRIDS)
    fits = [fitted(features, 7, folds=folds) for folds in (one_by_one(12), assign_folds(12, 3, seed=0), None)]
    for scorer, _ in fits[1:]:
        for name, tensor in fits[0][0].state_dict().items():
            assert torch.equal(tensor, scorer.state_dict()[name]), name
    torch.testing.assert_close(fits[0][1].in_sample, fits[1][1].in_sample, rtol=0, atol=0)
    assert fits[2][1] == Distances(None, None)


def test_channels_are_drawn_by_the_seed(some_features: SomeFeatures) -> None:
    scorer, _ = fitted(some_features(4, grids=GRIDS), 5, folds=None)
    assert torch.equal(scorer.indices, select_channels(12, 5, seed=3))


@pytest.mark.parametrize("n", [3, 5, 30])
def test_an_image_is_further_from_the_others_than_from_all(some_features: SomeFeatures, n: int) -> None:
    features = some_features(n, grids=GRIDS)
    in_sample, one_out = distances_of(features, 6, folds=one_by_one(n))
    _, folded = distances_of(features, 6, folds=assign_folds(n, 2, seed=0))
    assert np.isfinite(folded).all()
    assert (one_out > in_sample).all()
    assert (folded.mean(0) > in_sample.mean(0)).all()


def test_images_that_are_all_the_same_are_at_distance_zero() -> None:
    features = Features(tuple(torch.ones(*grid, 5, 2) for grid in GRIDS), Path("unused"))
    _, out_of_sample = distances_of(features, 3, folds=one_by_one(5))
    assert not out_of_sample.any()


@pytest.mark.parametrize("folds", [10, 3])
@pytest.mark.parametrize("positions", [1, 3])
def test_the_block_size_changes_nothing(
    some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch, folds: int, positions: int
) -> None:
    features, assigned = some_features(10, grids=GRIDS), assign_folds(10, folds, seed=0)
    whole = distances_of(features, 6, folds=assigned)
    monkeypatch.setattr(joining, "_BLOCK_BYTES", positions * 4 * 10 * 12)
    for mine, theirs in zip(distances_of(features, 6, folds=assigned), whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


def test_a_subset_is_fitted_as_if_there_were_no_others(some_features: SomeFeatures) -> None:
    features, chosen = some_features(12, grids=GRIDS), np.array([3, 11, 0, 5, 8])
    alone = replace(features, levels=tuple(level[:, :, chosen] for level in features.levels))
    one, two = (fitted(part, 4, folds=None)[0] for part in (features.subset(chosen), alone))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_features_that_are_not_finite_are_refused(some_features: SomeFeatures) -> None:
    features = some_features(6, grids=GRIDS)
    features.levels[0][2, 1, 3] = float("nan")
    with pytest.raises(RecipeError, match="not finite"):
        fitted(features, 12, folds=None)
