import pytest
import torch

from training import eigenpairs
from training.eigenpairs import leading


def centred(n: int, k: int, *, seed: int = 0) -> torch.Tensor:
    """(3, n, k) with directions of which each is three quarters as wide as the one before."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(3, k, k, generator=generator)).Q
    z = torch.randn(3, n, k, generator=generator) * 0.75 ** torch.arange(k) @ turned
    return z - z.mean(1, keepdim=True)


@pytest.mark.parametrize("exact", [512, 4], ids=["decomposed", "iterated"])
@pytest.mark.parametrize(("n", "k"), [(80, 30), (30, 30), (30, 80)])
def test_leading_directions_are_those_of_the_singular_values(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, exact: int
) -> None:
    monkeypatch.setattr(eigenpairs, "_EXACT", exact)
    z, rank = centred(n, k), 5
    values, vectors = leading(z, rank)
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    singular = torch.linalg.svd(z.double())
    torch.testing.assert_close(values, (singular.S[:, :rank].square() / (n - 1)).float(), rtol=1e-3, atol=0)
    aligned = (vectors.double().transpose(1, 2) @ singular.Vh[:, :rank].transpose(1, 2)).abs()
    torch.testing.assert_close(aligned, torch.eye(rank, dtype=torch.float64).expand(3, -1, -1), rtol=0, atol=5e-3)


def test_iterating_gives_the_same_numbers_each_time_and_touches_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenpairs, "_EXACT", 4)
    z = centred(40, 40)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = leading(z, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    for left, right in zip(one, leading(z, 5), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(("n", "k", "rank", "directions"), [(4, 9, 6, 3), (9, 4, 6, 4), (2, 9, 2, 1), (1, 3, 2, 0)])
def test_directions_that_there_are_not_are_zero(n: int, k: int, rank: int, directions: int) -> None:
    values, vectors = leading(centred(n, k), rank)
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    assert bool((values[:, :directions] > 0).all())
    assert values[:, directions:].abs().max() < 1e-6
    if n <= k:
        assert not vectors[..., directions:].any()
