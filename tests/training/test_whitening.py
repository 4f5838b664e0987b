from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import RecipeError
from training.features import Features
from training.joining import Joining
from training.progress import Progress
from training.whitening import Moments, moments_of, whitenings_of

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


def whitening_of(joining: Joining, *, epsilon: float, dimensions: int) -> torch.Tensor:
    """That of all pictures."""
    moments = moments_of(joining, [np.arange(joining.features.count)], device=CPU, progress=Progress.silent())
    (found,) = whitenings_of(moments, [None], epsilon=epsilon, dimensions=dimensions)
    return found


def test_moments_of_groups_add_up_to_those_of_all(some_features: SomeFeatures) -> None:
    joining = Joining(some_features(11), 3)
    groups = [np.array([3, 0, 7]), np.array([1, 2, 9, 10]), np.array([4, 5, 6, 8])]
    moments = moments_of(joining, groups, device=CPU, progress=Progress.silent())
    y = embedded(joining)
    for gone in (None, 0, 1, 2):
        known = y[:, np.concatenate([group for number, group in enumerate(groups) if number != gone])]
        np.testing.assert_allclose(moments.covariance(without=gone), average_covariance(known), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_fewer_dimensions_keep_the_narrowest_that_are_more_than_epsilon(
    some_features: SomeFeatures, epsilon: float
) -> None:
    joining = Joining(some_features(30), 3)
    whole, part = (whitening_of(joining, epsilon=epsilon, dimensions=kept).double() for kept in (D, 4))
    average = torch.from_numpy(average_covariance(embedded(joining))) + epsilon * torch.eye(D)
    torch.testing.assert_close(whole.T @ average @ whole, torch.eye(D).double(), rtol=0, atol=1e-4)
    variances, directions = torch.linalg.eigh(average)  # ascending
    faint = int((variances < 2 * epsilon).sum())
    assert (faint > 0) is (epsilon == 0.1)
    narrowest = slice(faint, faint + 4)
    wanted = directions[:, narrowest] / variances[narrowest] @ directions[:, narrowest].T
    torch.testing.assert_close(part @ part.T, wanted, rtol=0, atol=1e-4)


def test_a_whitening_holds_nothing_for_a_finer_level_past_its_own_channels(some_features: SomeFeatures) -> None:
    joining = Joining(some_features(30), 1)
    for dimensions in (D, 4):
        whitening = whitening_of(joining, epsilon=0.01, dimensions=dimensions)
        assert torch.equal(whitening.T, whitening.T.triu())
        assert whitening.any(dim=0).all()


@pytest.mark.parametrize("dimensions", [3, 2])
@pytest.mark.parametrize(("apart", "smallest"), [(1.0, r"-0\.99"), (0.006, r"0\.004")], ids=["indefinite", "spoilt"])
def test_a_covariance_that_rounding_has_spoilt_is_refused_with_what_to_do(
    dimensions: int, apart: float, smallest: str
) -> None:
    """No eigenvalue of one with ε on its diagonal can be below ε, and half of that is what rounding may take."""
    with pytest.raises(RecipeError, match=rf"its smallest eigenvalue is {smallest}, though scorer\.epsilon adds 0\.01"):
        list(whitenings_of(equally_related(apart), [None], epsilon=0.01, dimensions=dimensions))
    (whitening,) = whitenings_of(equally_related(0.004), [None], epsilon=0.01, dimensions=dimensions)
    assert whitening.isfinite().all()


def equally_related(covariance: float) -> Moments:
    """Of three numbers that do not vary, and yet each pair varies together."""
    pairs = {
        (l, m): torch.full((1, 1), covariance * (l != m), dtype=torch.float64) for m in range(3) for l in range(m + 1)
    }
    return Moments((), (2,), 1, pairs, {pair: part[None] for pair, part in pairs.items()})
