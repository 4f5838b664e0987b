from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.loops.centred import centred
from models.pooling import pooled

LAST = torch.channels_last


SHAPES = ((5, 6, 4), (3, 4, 2), (7, 1, 3))  # channels, rows and columns


def levels(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    drawn = [3 + torch.randn(2, *shape, generator=random) for shape in SHAPES]
    return [level.to(dtype).contiguous(memory_format=LAST) for level in drawn]


MEANS = [3 + torch.randn(h, w, c, generator=torch.Generator().manual_seed(1)) for c, h, w in SHAPES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_it_is_the_pooled_level_less_the_mean_rounded_once(kernel: int, dtype: torch.dtype) -> None:
    asked = levels(dtype)
    for level, mean, found in zip(asked, MEANS, centred(asked, MEANS, kernel=kernel), strict=True):
        wanted = pooled([level.double()], kernel)[0].permute(0, 2, 3, 1) - mean
        assert found.dtype == dtype
        assert found.is_contiguous()
        # In bfloat16 half a step of its 8 bits.
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8 if dtype == torch.bfloat16 else 0, atol=2e-6)


def test_however_the_levels_lie_it_is_the_same() -> None:
    otherwise = centred([level.contiguous() for level in levels()], MEANS, kernel=3)
    torch.testing.assert_close(otherwise, centred(levels(), MEANS, kernel=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_its_neighbours_and_no_further(value: float, dtype: torch.dtype) -> None:
    asked = levels(dtype)
    asked[0][1, 2, 3, 1] = value
    faulty, *others = [~found.isfinite() for found in centred(asked, MEANS, kernel=3)]
    wanted = torch.zeros_like(faulty)
    wanted[1, 2:5, 0:3, 2] = True
    assert torch.equal(faulty, wanted)
    assert not any(other.any() for other in others)


@pytest.mark.parametrize(
    "change",
    [
        lambda levels, means: (levels, [means[0][:-1], *means[1:]]),
        lambda levels, means: ([*levels[:2], levels[2][:, :-1]], means),
        lambda levels, means: ([levels[0], levels[1][:1], levels[2]], means),
    ],
)
def test_levels_and_means_that_do_not_go_together_are_refused(
    change: Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]],
) -> None:
    asked, means = change(levels(), MEANS)
    with pytest.raises(ValueError, match="has no mean"):
        centred(asked, means, kernel=3)
