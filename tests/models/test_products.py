"""Matrix products by whichever library, against double precision."""

import pytest
import torch
from torch import Tensor

from models import products
from models.products import gram, product


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.fixture(params=["oneDNN", "torch's default"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "oneDNN":
        monkeypatch.setattr(products, "_onednn", lambda: None)
    elif products._onednn() is None:
        pytest.skip("this torch was built without oneDNN")
    return str(request.param)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float64, 1e-14)]
)
def test_a_product_is_a_product(dtype: torch.dtype, tolerance: float) -> None:
    a, b = random(17, 40, dtype=dtype), random(23, 40, dtype=dtype).flip(0)
    wanted = a.double() @ b.double().T
    found = product(a, b)
    assert found.dtype == dtype
    assert found.shape == (17, 23)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_matrices_may_lie_as_they_like(which: str) -> None:
    a, b = random(12, 9), random(7, 9)
    wanted = a.double() @ b.double().T
    if which != "second":
        a = a.T.contiguous().T
    if which != "first":
        b = random(7, 18)[:, ::2]
        wanted = a.double() @ b.double().T
    torch.testing.assert_close(product(a, b).double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "k"), [(11, 40), (12, 40), (30, 40), (1, 3)])  # long and short
@pytest.mark.parametrize("few", [3, 256])
def test_a_gram_matrix_is_each_rows_products_with_each_other(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, n: int, k: int, few: int
) -> None:
    monkeypatch.setattr(products, "_FEW", few)
    z = random(5, n, k, dtype=dtype)
    found = gram(z)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.einsum("pik,pjk->pij", z.double(), z.double()), rtol=0, atol=1e-4)


def test_bfloat16_has_a_gram_matrix_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    z = random(5, 30, 40, dtype=torch.bfloat16)
    wanted = torch.einsum("pik,pjk->pij", z.double(), z.double())
    for ready in (products.bfloat16_products.ready, lambda: False):
        monkeypatch.setattr(products.bfloat16_products, "ready", ready)
        found = gram(z)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


def test_gaps_between_rows_are_closed_before_the_library_sees_them(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them oneDNN computes the same, a thousand times as slowly."""
    if library != "oneDNN":
        pytest.skip("of oneDNN alone")
    seen: list[Tensor] = []
    onednn = products._onednn()

    def recorded(a: Tensor, b: Tensor, *rest: object) -> Tensor:
        seen.extend((a, b))
        found: Tensor = onednn(a, b, *rest)
        return found

    monkeypatch.setattr(products, "_onednn", lambda: recorded)
    gaps = random(30, 5, 9).unbind(1)[2]
    for a in (gaps, gaps.T):
        torch.testing.assert_close(product(a, a), a @ a.T)
    assert all(each.is_contiguous() or each.T.is_contiguous() for each in seen)
