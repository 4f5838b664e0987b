from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.loops.bfloat16 import narrow, numbers, wide
from models.loops.compiled import compiled


def there_and_back(given: Any, found: Any) -> None:
    for i in range(len(given)):
        found[i] = narrow(wide(given[i]), found)


both = pytest.mark.parametrize("loop", [there_and_back, compiled(there_and_back)], ids=["python", "compiled"])


def rounded(loop: Any, x: Tensor) -> Tensor:
    found = torch.empty(len(x), dtype=torch.bfloat16)
    loop(x.numpy(), numbers(found))
    return found


@both
def test_float32_is_rounded_to_bfloat16_as_torch_does_it(loop: Any) -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (10_000,), generator=torch.Generator().manual_seed(0))
    halfway = (torch.arange(0, 2**15, 7) << 16) + 0x8000
    drawn = torch.cat([bits, halfway, -halfway]).to(torch.int32).view(torch.float32)
    torch.testing.assert_close(rounded(loop, drawn), drawn.bfloat16(), rtol=0, atol=0, equal_nan=True)


@both
def test_what_is_not_a_number_is_none_in_bfloat16_whatever_its_bits(loop: Any) -> None:
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x007FFFFF], dtype=torch.int32)
    assert bits.view(torch.float32).isnan().all()
    assert rounded(loop, bits.view(torch.float32)).isnan().all()


@both
def test_bfloat16_comes_through_unchanged(loop: Any) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    found = torch.empty_like(every)
    loop(numbers(every), numbers(found))
    torch.testing.assert_close(found, every, rtol=0, atol=0, equal_nan=True)


def test_an_array_lies_on_the_tensor_s_memory() -> None:
    tensor = torch.zeros(3, dtype=torch.bfloat16)
    array = numbers(tensor)
    assert array.dtype == np.uint16
    array[1] = 0x3F80
    assert tensor.tolist() == [0, 1, 0]
