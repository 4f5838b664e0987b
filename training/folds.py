"""Folds of good images: each is scored by a fit to the others (seed, step 6.2: thresholds come from unseen images).

They are decided here alone; the fits merge them where each costs too much.
"""

import numpy as np

from training.arrays import Indices


def assign_folds(n: int, folds: int, *, seed: int) -> Indices:
    """Which of at most `folds` folds, of sizes that differ by one at most, each of `n` images belongs to."""
    count = min(folds, n)
    assigned = np.arange(n) % count
    return np.random.default_rng([seed, n, count]).permutation(assigned)


def merged(folds: Indices, most: int) -> Indices:
    """The fold of each image (n,), of `most` at most: the folds are numbered from 0 and taken modulo `most`."""
    _, numbered = np.unique(folds, return_inverse=True)
    return np.asarray(numbered % most, np.int64)
