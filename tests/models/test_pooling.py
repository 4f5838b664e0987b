"""Both ways of averaging a level over its neighbourhoods, against a mean written out."""

import pytest
import torch
from torch import Tensor

from models.pooling import pooled, pooled_with_zeros


def levels() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 6, 5), torch.randn(2, 4, 3, 2)]


def window(level: Tensor, row: int, column: int, kernel: int) -> Tensor:
    """The neighbours that exist, (b, c, ?, ?)."""
    reach = kernel // 2
    return level[:, :, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_each_value_is_the_mean_of_the_neighbours_that_exist(kernel: int) -> None:
    for level, near in zip(levels(), pooled(levels(), kernel), strict=True):
        assert near.shape == level.shape
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                wanted = window(level, row, column, kernel).mean(dim=(2, 3))
                assert torch.allclose(near[:, :, row, column], wanted, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_zeros_beyond_the_border_count_where_that_is_wanted(kernel: int) -> None:
    for level, near in zip(levels(), pooled_with_zeros(levels(), kernel), strict=True):
        assert near.shape == level.shape
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                wanted = window(level, row, column, kernel).sum(dim=(2, 3)) / kernel**2
                assert torch.allclose(near[:, :, row, column], wanted, atol=1e-6)


def test_an_even_level_stays_even_unless_zeros_count() -> None:
    even = [torch.ones(1, 1, 5, 5)]
    assert torch.allclose(pooled(even, 3)[0], even[0])
    bordered = pooled_with_zeros(even, 3)[0]
    assert torch.allclose(bordered[0, 0, 0, 0], torch.tensor(4 / 9))
    assert torch.allclose(bordered[0, 0, 2, 2], torch.tensor(1.0))


def test_a_kernel_of_one_gives_the_very_same_levels() -> None:
    given = levels()
    assert all(a is b for a, b in zip(pooled(given, 1), given, strict=True))
