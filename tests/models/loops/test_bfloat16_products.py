import pytest
import torch
from torch import Tensor

from models.loops import bfloat16_products
from models.loops.bfloat16_products import gram

pytestmark = pytest.mark.skipif(
    not bfloat16_products.ready(), reason="this processor has no instruction for products of bfloat16"
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("n", [1, 8, 31, 32, 33, 100])
@pytest.mark.parametrize("k", [1, 2, 7, 300])
def test_products_are_exact_and_added_in_float32(n: int, k: int) -> None:
    z = random(3, n, k)
    found, wanted = gram(z), z.double() @ z.double().transpose(1, 2)
    assert (found.dtype, found.shape) == (torch.float32, (3, n, n))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))
    assert torch.equal(found, found.transpose(1, 2))


def test_small_vectors_beside_large_ones_keep_their_digits() -> None:
    """In bfloat16 their products would be lost in the rounding of the others'."""
    z = random(1, 40, 64) * torch.where(torch.arange(40) < 2, 1000.0, 1.0).bfloat16().view(1, -1, 1)
    wanted = z.double() @ z.double().transpose(1, 2)
    found = gram(z).double()[:, 2:, 2:]
    torch.testing.assert_close(found, wanted[:, 2:, 2:], rtol=0, atol=1e-6 * float(wanted[:, 2:, 2:].abs().max()))


def test_rows_may_have_something_between_them() -> None:
    whole = random(2, 50, 24)
    assert torch.equal(gram(whole[:, :40]), gram(whole[:, :40].contiguous()))
    assert torch.equal(gram(whole.transpose(1, 2)), gram(whole.transpose(1, 2).contiguous()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_that(value: float) -> None:
    z = random(2, 40, 6)
    z[1, 3, 2] = value
    found = gram(z)
    assert found[0].isfinite().all()
    assert not found[1, 3].isfinite().any()
    assert not found[1, :, 3].isfinite().any()
