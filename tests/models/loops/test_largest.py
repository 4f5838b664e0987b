"""Max pooling in a compiled loop against torch's own, bit by bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.loops.largest import largest


def pictures(b: int = 3, *, c: int = 5, h: int = 9, w: int = 8) -> Tensor:
    drawn = torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(0)).bfloat16()
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (1, 1, 0), (2, 2, 0), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("shift", [-10, 0, 10])  # all below zero, some, none
def test_it_is_max_pooling(kernel: int, stride: int, padding: int, shift: int) -> None:
    x = pictures() + shift
    found = largest(x, kernel=kernel, stride=stride, padding=padding)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, F.max_pool2d(x, kernel, stride, padding))
    assert torch.equal(largest(x.contiguous(), kernel=kernel, stride=stride, padding=padding), found)


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFC0 - 2**16, 0x7F81, 0xFF81 - 2**16])
def test_what_is_not_a_number_stays_so_whatever_its_sign(bits: int) -> None:
    x = pictures() + torch.inf
    x.view(torch.int16)[1, 2, 3, 4] = bits
    assert x[1, 2, 3, 4].isnan()
    assert torch.equal(largest(x, kernel=3, stride=2, padding=1).isnan(), F.max_pool2d(x, 3, 2, 1).isnan())


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e-40, -1e-40, -0.0])
def test_the_ends_and_the_middle_of_all_numbers_are_in_order(value: float) -> None:
    x = torch.full((1, 1, 4, 4), value, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = -1
    assert torch.equal(largest(x, kernel=3, stride=2, padding=1), F.max_pool2d(x, 3, 2, 1))


def test_more_padding_than_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="more than half"):
        largest(pictures(), kernel=1, stride=1, padding=1)


def test_float32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float32"):
        largest(pictures().float(), kernel=3, stride=2, padding=1)
