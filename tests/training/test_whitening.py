from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.features import Features
from training.joining import Joining
from training.progress import Progress
from training.whitening import moments_of, whitening_of

CPU = torch.device("cpu")
D = 12  # channels of `some_features`
SomeFeatures = Callable[..., Features]


def embedded(joining: Joining) -> NDArray[np.float64]:
    """Y of all pictures, (p, n, d)."""
    count = joining.features.count
    y = torch.cat([joining.embed(block, np.arange(count), CPU) for block in joining.blocks(count)])
    return np.asarray(y.double().numpy())


def average_covariance(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """That of each position, (d, d), averaged over them."""
    return np.asarray(np.mean([np.cov(here, rowvar=False) for here in y], axis=0))


def test_moments_of_groups_add_up_to_those_of_all(some_features: SomeFeatures) -> None:
    joining = Joining(some_features(11), 3)
    groups = [np.array([3, 0, 7]), np.array([1, 2, 9, 10]), np.array([4, 5, 6, 8])]
    moments = moments_of(joining, groups, device=CPU, progress=Progress.silent())
    y = embedded(joining)
    for chosen in ([0, 1, 2], [0, 2], [1]):
        known = y[:, np.concatenate([groups[group] for group in chosen])]
        np.testing.assert_allclose(moments.covariance(chosen), average_covariance(known), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_fewer_dimensions_keep_the_narrowest_that_are_more_than_epsilon(
    some_features: SomeFeatures, epsilon: float
) -> None:
    joining = Joining(some_features(30), 3)
    covariance = moments_of(joining, [np.arange(30)], device=CPU, progress=Progress.silent()).covariance([0])
    whole, part = (whitening_of(covariance, epsilon=epsilon, dimensions=kept) for kept in (D, 4))
    assert torch.equal(whole[:, :4], part)
    average = torch.from_numpy(average_covariance(embedded(joining))) + epsilon * torch.eye(D)
    torch.testing.assert_close((whole.T.double() @ average @ whole.double()).float(), torch.eye(D), rtol=0, atol=1e-4)
    variances = 1 / whole.square().sum(0)  # of the directions, in their order
    faint = variances < 2 * epsilon
    last = int(faint.sum())
    assert (last > 0) is (epsilon == 0.1)
    assert not faint[: D - last].any()
    assert bool((variances[: D - last].diff() > 0).all())
    assert bool((variances[D - last :].diff() < 0).all())
