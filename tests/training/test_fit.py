from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.backbone import build_backbone, channels, grids
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.gaussian import mahalanobis, unpack_lower
from models.preprocess import PreprocessConfig
from training import fit
from training.batch_norm import estimate_batch_norm
from training.fit import GaussianFit, assign_folds, extract, fit_gaussian
from training.progress import Progress
from training.synthetic import Tiles

EPSILON = 0.01
SMALL = PreprocessConfig(image_size=64)
Features = NDArray[np.float32]
Folds = NDArray[np.int64]


def features(n: int, p: int, d: int, *, seed: int = 0) -> Features:
    """Correlated and skewed, far from the origin, as features after a ReLU are."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(p, d, d)) / np.sqrt(d)
    return np.maximum(np.einsum("npd,pde->npe", rng.normal(size=(n, p, d)), mixing) + 2, 0).astype(np.float32)


def fitted(y: Features, *, epsilon: float = EPSILON, folds: Folds | None = None) -> GaussianFit:
    return fit_gaussian(y, epsilon=epsilon, folds=folds, progress=Progress.silent())


def refit(good: Features, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (p, d) and covariance (p, d, d) of (n, p, d), by numpy."""
    n, p, d = good.shape
    samples = good.astype(np.float64)
    covariance = np.zeros((p, d, d))
    if n > 1:
        covariance = np.stack([np.atleast_2d(np.cov(samples[:, i], rowvar=False)) for i in range(p)])
    return samples.mean(0), covariance + epsilon * np.eye(d)


def distances(y: Features, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, p), by numpy."""
    offset = y - mean
    return np.sqrt(np.einsum("npd,npd->np", offset, np.linalg.solve(covariance, offset[..., None])[..., 0]))


def refits(y: Features, folds: Folds, epsilon: Callable[[int], float]) -> NDArray[np.float64]:
    """Each image under the Gaussian of the other folds, fitted anew; `epsilon` of the number of others."""
    out = np.empty(y.shape[:2])
    for fold in np.unique(folds):
        others = y[folds != fold]
        out[folds == fold] = distances(y[folds == fold], *refit(others, epsilon(len(others))))
    return out


SHAPES = [(40, 3, 8), (12, 3, 12), (9, 4, 30), (3, 2, 5), (2, 2, 5), (60, 1, 1)]


@pytest.mark.parametrize(("n", "p", "d"), SHAPES)
def test_mean_and_covariance_are_numpys(n: int, p: int, d: int) -> None:
    y = features(n, p, d)
    result = fitted(y)
    mean, covariance = refit(y, EPSILON)
    np.testing.assert_allclose(result.mean, mean, rtol=1e-6)
    whitening = unpack_lower(result.whitening, d).double().numpy()
    np.testing.assert_allclose(whitening @ covariance @ whitening.transpose(0, 2, 1), [np.eye(d)] * p, atol=2e-4)
    np.testing.assert_allclose(result.in_sample, distances(y, mean, covariance), rtol=1e-5)


@pytest.mark.parametrize(("n", "p", "d"), SHAPES)
def test_leaving_one_out_is_refitting_without_each_image(n: int, p: int, d: int) -> None:
    y = features(n, p, d)
    # The closed form keeps (n-1)ε in the sum of squares, which the others divide by n - 2.
    exact = refits(y, np.arange(n), lambda others: EPSILON * (n - 1) / max(others - 1, 1))
    np.testing.assert_allclose(fitted(y).out_of_sample, exact, rtol=1e-5)


def test_the_scaling_of_epsilon_hardly_shows() -> None:
    y = features(40, 3, 60)
    exact = refits(y, np.arange(40), lambda _others: EPSILON)
    np.testing.assert_allclose(fitted(y).out_of_sample, exact, rtol=0.5 / 38)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_leaving_one_out_holds_where_channels_outnumber_images(scale: float) -> None:
    # In sample, every image then lies at about the same distance: what tells them apart is in the last digits.
    y = features(20, 2, 80) * np.float32(scale)
    exact = refits(y, np.arange(20), lambda others: EPSILON * 19 / (others - 1))
    result = fitted(y)
    np.testing.assert_allclose(result.in_sample, np.sqrt(19 * 19 / 20), rtol=0.01)
    np.testing.assert_allclose(result.out_of_sample, exact, rtol=1e-4)


@pytest.mark.parametrize(("n", "k"), [(12, 4), (13, 4), (9, 2), (5, 50), (3, 2), (2, 2)])
def test_cross_fitting_is_refitting_without_each_fold(n: int, k: int) -> None:
    y = features(n, 3, 7)
    folds = assign_folds(n, k, seed=0)
    exact = refits(y, folds, lambda _others: EPSILON)
    np.testing.assert_allclose(fitted(y, folds=folds).out_of_sample, exact, rtol=1e-5)


def test_what_is_not_out_of_sample_does_not_depend_on_folds() -> None:
    y = features(12, 3, 7)
    one_out, folded = fitted(y), fitted(y, folds=assign_folds(12, 3, seed=0))
    assert torch.equal(one_out.mean, folded.mean)
    assert torch.equal(one_out.whitening, folded.whitening)
    assert torch.equal(one_out.in_sample, folded.in_sample)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_an_image_is_further_from_the_others_than_from_all(n: int) -> None:
    y = features(n, 4, 6)
    one_out, folded = fitted(y), fitted(y, folds=assign_folds(n, 2, seed=0))
    assert torch.isfinite(folded.out_of_sample).all()
    assert bool((one_out.out_of_sample > one_out.in_sample).all())
    assert bool((folded.out_of_sample.mean(0) > folded.in_sample.mean(0)).all())


def test_images_that_are_all_the_same_are_at_distance_zero() -> None:
    result = fitted(np.ones((5, 2, 3), np.float32))
    assert torch.equal(result.out_of_sample, torch.zeros(5, 2))


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("positions", [1, 2, 5])
def test_the_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch, folds: int | None, positions: int) -> None:
    y = features(10, 7, 6)
    assigned = None if folds is None else assign_folds(10, folds, seed=0)
    whole = fitted(y, folds=assigned)
    monkeypatch.setattr(fit, "_BLOCK_BYTES", positions * 8 * 6 * 10)
    blocks = fitted(y, folds=assigned)
    for name in ("mean", "whitening", "in_sample", "out_of_sample"):
        assert torch.allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-6), name


@pytest.mark.parametrize(("n", "k"), [(10, 3), (9, 3), (4, 10), (2, 2)])
def test_folds_are_of_like_size_and_decided_by_the_seed(n: int, k: int) -> None:
    folds = assign_folds(n, k, seed=1)
    sizes = np.bincount(folds)
    assert len(folds) == n
    assert len(sizes) == min(n, k)
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(folds, assign_folds(n, k, seed=1))


def test_folds_are_shuffled() -> None:
    assert not np.array_equal(assign_folds(40, 5, seed=0), assign_folds(40, 5, seed=1))
    assert not np.array_equal(assign_folds(40, 5, seed=0), np.arange(40) % 5)


@pytest.fixture
def detector(part_tiles: Tiles) -> Detector:
    """With 40 of 448 channels: more than the 16 parts, so that the covariance is regular by ε alone."""
    torch.manual_seed(0)
    config = DetectorConfig(
        arch="resnet18", preprocess=SMALL, fusion="none", scorer=DenseGaussianConfig(channels=40), smoothing=4.0
    )
    built = build_detector(config)
    backbone = build_backbone("resnet18")
    estimate_batch_norm(backbone, part_tiles.images, SMALL)
    built.backbone.load_state_dict(backbone.state_dict())
    built.scorer.indices.copy_(torch.arange(0, sum(channels("resnet18")), 448 // 40)[:40])
    return built.eval().requires_grad_(False)


def test_extracted_features_are_those_that_the_scorer_sees(
    detector: Detector, part_tiles: Tiles, tmp_path: Path
) -> None:
    file = tmp_path / "features.npy"
    y = extract(
        detector,
        part_tiles.images,
        file=file,
        device=torch.device("cpu"),
        progress=Progress.silent(),
        batch_size=5,
    )
    height, width = grids(64)[0]
    assert y.shape == (16, height * width, 40)
    assert np.load(file).shape == y.shape
    expected = detector.scorer.embed(detector.levels(part_tiles.images))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_on_real_features_distances_are_the_scorers_and_leaving_one_out_is_exact(
    detector: Detector, part_tiles: Tiles, tmp_path: Path
) -> None:
    y = extract(
        detector,
        part_tiles.images,
        file=tmp_path / "features.npy",
        device=torch.device("cpu"),
        progress=Progress.silent(),
    )
    result = fitted(y)
    scored = mahalanobis(torch.from_numpy(np.array(y)), result.mean, result.whitening)
    np.testing.assert_allclose(result.in_sample, scored, rtol=1e-4)
    few = np.array(y[:, ::37])
    exact = refits(few, np.arange(16), lambda others: EPSILON * 15 / (others - 1))
    np.testing.assert_allclose(result.out_of_sample[:, ::37], exact, rtol=1e-5)
