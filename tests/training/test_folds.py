import numpy as np
import pytest

from training.folds import assign_folds, merged


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


def test_merging_keeps_a_fold_together_and_few_folds_as_they_are() -> None:
    folds = assign_folds(60, 13, seed=0)
    fewer = merged(folds, 5)
    assert fewer.dtype == np.int64
    assert set(fewer.tolist()) == set(range(5))
    assert all(len(set(fewer[folds == fold].tolist())) == 1 for fold in range(13))
    np.testing.assert_array_equal(merged(folds, 13), folds)


def test_merging_counts_the_folds_that_there_are() -> None:
    assert merged(np.array([9, 3, 3, 21]), 2).tolist() == [1, 0, 0, 0]
