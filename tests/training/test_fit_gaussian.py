from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.errors import DatasetError, RecipeError
from models.mfcsam import concatenate
from models.pooling import pooled
from training import eigenpairs as module
from training import fit_gaussian as fitting
from training import joining
from training.distances import Distances
from training.features import Features
from training.fit_gaussian import fit_gaussian, scan, shortened
from training.folds import assign_folds
from training.progress import Progress
from training.whitened import whiten

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
    rounded: bool = True,
) -> tuple[CompactGaussian, Distances]:
    """`rounded`: as in production. Where directions explain all of 12 dimensions, rounding is most of what is left."""
    config = CompactGaussianConfig(dimensions=dimensions, rank=rank, shrinkage=shrinkage, pooling=pooling)
    scorer = CompactGaussian(config, features.channels, features.grids)
    with pytest.MonkeyPatch.context() as patch:
        if not rounded:
            scorer.directions = scorer.directions.float()
            patch.setattr(fitting, "shortened", unrounded)
        found = fit_gaussian(scorer, features, epsilon=EPSILON, folds=folds, device=CPU, progress=Progress.silent())
    return scorer, found


def unrounded(values: Tensor, vectors: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """`shortened` without the rounding."""
    s = (1 - shrinkage) * values
    return vectors * (s / (s + shrinkage)).sqrt().unsqueeze(1), torch.ones_like(values)


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
    scorer, distances = fitted(features, shrinkage=shrinkage, pooling=pooling, folds=folds, rounded=False)
    scorer.check()
    y = embedded(features, pooling)
    average = covariances(y).mean(0)
    assert distances.in_sample is not None
    tolerance = 1e-3 / shrinkage
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
    _, distances = fitted(features, folds=folds, rounded=False)
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


@pytest.mark.parametrize("shrinkage", [0.03, 0.3])
def test_corrections_make_up_for_rounding(shrinkage: float) -> None:
    vectors = torch.linalg.qr(torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))).Q
    values = torch.tensor([[90.0, 3.0, 0.2, 0.0]]).expand(3, -1)
    directions, corrections = shortened(values, vectors, shrinkage)
    assert directions.dtype == torch.int8
    assert directions.abs().amax() == 127
    s = (1 - shrinkage) * values
    torch.testing.assert_close(directions.float().square().sum(1) * corrections, s / (s + shrinkage), rtol=1e-6, atol=0)
    assert not directions[..., 3].any()  # one that there is not
    torch.testing.assert_close(
        torch.nn.functional.normalize(directions.float(), dim=1)[..., :3], vectors[..., :3], atol=4e-3, rtol=0
    )


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
    torch.testing.assert_close(with_(wanted), without(wanted), rtol=1e-2, atol=1e-2)


def test_a_subset_is_fitted_as_if_there_were_no_others(some_features: SomeFeatures) -> None:
    features, chosen = some_features(12), np.array([3, 11, 0, 5, 8])
    alone = replace(features, levels=tuple(level[:, :, chosen] for level in features.levels))
    one, two = (fitted(part, rank=4)[0] for part in (features.subset(chosen), alone))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_the_block_size_changes_nothing(some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    features, folds = some_features(10), assign_folds(10, 3, seed=0)
    _, whole = fitted(features, rank=4, folds=folds)
    for name in ("_BLOCK_BYTES", "_CACHED_BYTES"):
        monkeypatch.setattr(joining, name, 3 * 4 * 10 * D)
    _, blocks = fitted(features, rank=4, folds=folds)
    torch.testing.assert_close(blocks.in_sample, whole.in_sample, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(blocks.out_of_sample, whole.out_of_sample, rtol=2e-3, atol=2e-3)


def kept_in(dtype: torch.dtype, features: Features) -> Features:
    return replace(features, levels=tuple(level.to(dtype) for level in features.levels))


@pytest.mark.parametrize("computed", [torch.float32, torch.bfloat16])
def test_iterated_directions_score_as_exact_ones(
    some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch, computed: torch.dtype
) -> None:
    features, types = kept_in(computed, some_features(120, channels=(24, 32, 48))), []
    folds = assign_folds(120, 4, seed=0)
    monkeypatch.setattr(module, "_LARGE", 100)
    scorer, exact = fitted(features, rank=3, dimensions=104, folds=folds)
    monkeypatch.undo()
    assert module.iterates(90, 104, 3)
    monkeypatch.setattr(fitting, "whiten", lambda *args, **how: types.append(how["dtype"]) or whiten(*args, **how))
    other, iterated = fitted(features, rank=3, dimensions=104, folds=folds)
    assert types == [computed] * 5
    assert not torch.equal(other.directions, scorer.directions)
    for mine, theirs in ((iterated.in_sample, exact.in_sample), (iterated.out_of_sample, exact.out_of_sample)):
        assert mine is not None
        # This noise has no directions that stand out.
        torch.testing.assert_close(mine, theirs, rtol=0.02 if computed == torch.float32 else 0.04, atol=0)


@pytest.mark.parametrize("computed", [torch.float32, torch.bfloat16])
def test_no_digit_depends_on_how_many_threads_there_are(some_features: SomeFeatures, computed: torch.dtype) -> None:
    """Nor on who made the features: in a training they come out of inference mode."""
    features = kept_in(computed, some_features(120, channels=(24, 32, 48)))
    folds, before = assign_folds(120, 4, seed=0), torch.get_num_threads()
    assert module.iterates(90, 104, 3)
    found = []
    try:
        for threads, inferred in ((1, False), (3, True)):
            torch.set_num_threads(threads)
            with torch.inference_mode(inferred):
                levels = tuple(level.clone() for level in features.levels)
            assert levels[0].is_inference() is inferred
            taken = replace(features, levels=levels)
            scorer, distances = fitted(taken, rank=3, dimensions=104, folds=folds)
            found.append([*scorer.state_dict().values(), distances.in_sample, distances.out_of_sample])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_half_precision_does_not_lose_a_picture_that_lies_far_out(
    some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few good pictures differ from the others in one corner, a hundred times as much as those among themselves."""
    features = some_features(120, channels=(24, 32, 48))
    pattern = torch.rand(1, 48, generator=torch.Generator().manual_seed(1))
    features.levels[2][0, 0, :6] += torch.linspace(10, 100, 6).unsqueeze(1) * pattern
    features = kept_in(torch.bfloat16, features)
    monkeypatch.setattr(module, "_LARGE", 100)
    _, exact = fitted(features, rank=3, shrinkage=0.03, dimensions=104, folds=np.arange(120) % 4)
    monkeypatch.undo()
    _, found = fitted(features, rank=3, shrinkage=0.03, dimensions=104, folds=np.arange(120) % 4)
    for mine, theirs in ((found.in_sample, exact.in_sample), (found.out_of_sample, exact.out_of_sample)):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0)


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
    features.levels[1][2, 1, 3, 0] = value
    with pytest.raises(RecipeError, match=r"not finite: .*--weights"):
        fitted(features, rank=3)


def test_pictures_that_do_not_differ_are_refused(some_features: SomeFeatures) -> None:
    features = some_features(5)
    for level in features.levels:
        level[:] = 1
    with pytest.raises(DatasetError, match="do not differ from each other"):
        fitted(features, rank=3)
    fitted(features, rank=3, shrinkage=1.0)  # which knows no directions anyway
