import pytest
import torch
from torch import Tensor

from models.loops.centred import centred
from models.pooling import pooled

LAST = torch.channels_last


def level(dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = 3 + torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    return drawn.to(dtype).contiguous(memory_format=LAST)


MEAN = 3 + torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_it_is_the_pooled_level_less_the_mean_rounded_once(kernel: int, dtype: torch.dtype) -> None:
    asked = level(dtype)
    found = centred(asked, MEAN, kernel=kernel)
    wanted = pooled([asked.double()], kernel)[0].permute(0, 2, 3, 1) - MEAN
    assert found.dtype == dtype
    assert found.is_contiguous()
    # In bfloat16 half a step of its 8 bits.
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8 if dtype == torch.bfloat16 else 0, atol=2e-6)


def test_however_the_level_lies_it_is_the_same() -> None:
    torch.testing.assert_close(centred(level().contiguous(), MEAN, kernel=3), centred(level(), MEAN, kernel=3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_its_neighbours_and_no_further(value: float, dtype: torch.dtype) -> None:
    asked = level(dtype)
    asked[1, 2, 3, 1] = value
    faulty = ~centred(asked, MEAN, kernel=3).isfinite()
    wanted = torch.zeros_like(faulty)
    wanted[1, 2:5, 0:3, 2] = True
    assert torch.equal(faulty, wanted)


def test_a_mean_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="has no mean"):
        centred(level(), MEAN[:-1], kernel=3)
