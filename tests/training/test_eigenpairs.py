import pytest
import torch

from training import eigenpairs
from training.eigenpairs import Leading, iterates

RANK = 5


def centred(n: int, k: int, *, positions: int = 3, seed: int = 0) -> torch.Tensor:
    """(positions, n, k) with directions of which each is three quarters as wide as the one before."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(positions, k, k, generator=generator)).Q
    z = torch.randn(positions, n, k, generator=generator) * 0.75 ** torch.arange(k) @ turned
    return z - z.mean(1, keepdim=True)


def singular(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (p, RANK) and vectors (p, k, RANK) of the covariance by another road, float64."""
    found = torch.linalg.svd(z.double(), full_matrices=False)
    return found.S[:, :RANK].square() / (z.shape[1] - 1), found.Vh[:, :RANK].transpose(1, 2)


def check(z: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor, *, rtol: float, atol: float) -> None:
    """Values within `rtol` and cosines within `atol` of what they should be."""
    assert (values.dtype, vectors.dtype) == (torch.float32, torch.float32)
    assert (values.shape, vectors.shape) == ((len(z), RANK), (len(z), z.shape[2], RANK))
    variances, directions = singular(z)
    torch.testing.assert_close(values, variances.float(), rtol=rtol, atol=0)
    cosines = (vectors.double().transpose(1, 2) @ directions).abs()
    torch.testing.assert_close(cosines, torch.eye(RANK).double().expand_as(cosines), rtol=0, atol=atol)


@pytest.mark.parametrize("wide", [512, 4], ids=["gram", "factors"])
@pytest.mark.parametrize(("n", "k"), [(100, 90), (90, 100), (80, 30), (30, 80)])
def test_leading_directions_are_those_of_the_singular_values(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, wide: int
) -> None:
    monkeypatch.setattr(eigenpairs, "_WIDE", wide)
    assert iterates(n, k, RANK) is (min(n, k) == 90)
    check(centred(n, k), *Leading(RANK)(centred(n, k)), rtol=1e-3, atol=5e-3)


def test_an_iteration_goes_on_where_the_neighbours_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as they are alike: of other positions the directions are found all the same."""
    leading, starts, rounds = Leading(RANK), [], []
    decomposed, factorised = eigenpairs._decomposed, torch.linalg.qr
    monkeypatch.setattr(eigenpairs, "_decomposed", lambda side: starts.append(len(side)) or decomposed(side))
    monkeypatch.setattr(torch.linalg, "qr", lambda matrix: rounds.append(len(matrix)) or factorised(matrix))
    one, other, noise = (centred(100, 120, positions=1, seed=seed) for seed in range(3))
    given = [one, one + 1e-2 * noise, other, centred(90, 120)]
    spent = []
    for z in given:
        before = len(rounds)
        check(z, *leading(z), rtol=1e-2, atol=2e-2)
        spent.append(len(rounds) - before)
    assert starts == [1, 1]  # again where there are fewer pictures
    assert spent[1] < spent[2]


def test_half_precision_loses_no_direction() -> None:
    z = centred(100, 120)
    values, vectors = Leading(RANK)(z.bfloat16())
    check(z, values, vectors, rtol=2e-2, atol=2e-2)


def test_the_same_comes_out_each_time_and_no_generator_is_touched() -> None:
    z = centred(100, 100)
    before = torch.get_rng_state()
    one, two = Leading(RANK)(z), Leading(RANK)(z)
    assert torch.equal(torch.get_rng_state(), before)
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left, right)


def test_variances_far_apart_are_told_apart() -> None:
    """The first direction a hundred times as wide as the last that is kept: no round may lose that one."""
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(2, 120, 120, generator=generator)).Q
    widths = torch.cat([torch.logspace(2, 0, RANK), torch.full((120 - RANK,), 0.3)])
    z = torch.randn(2, 100, 120, generator=generator) * widths @ turned
    z -= z.mean(1, keepdim=True)
    check(z, *Leading(RANK)(z), rtol=1e-3, atol=5e-3)


def test_a_position_where_nothing_differs_has_no_directions_and_spoils_no_other() -> None:
    z = centred(100, 120)
    z[1:] = 0
    leading = Leading(RANK)
    values, vectors = leading(z)
    assert not values[1:].any()
    assert not vectors[1:].any()
    check(z[:1], values[:1], vectors[:1], rtol=1e-3, atol=5e-3)
    other = centred(100, 120, seed=1)
    check(other, *leading(other), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(("n", "k", "rank", "directions"), [(4, 9, 6, 3), (9, 4, 6, 4), (2, 9, 2, 1), (1, 3, 2, 0)])
def test_directions_that_there_are_not_are_zero(n: int, k: int, rank: int, directions: int) -> None:
    values, vectors = Leading(rank)(centred(n, k))
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    assert bool((values[:, :directions] > 0).all())
    assert values[:, directions:].abs().max() < 1e-6
    if n <= k:
        assert not vectors[..., directions:].any()
