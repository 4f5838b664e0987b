import pytest
import torch

from models.errors import RecipeError
from training import eigenpairs
from training.eigenpairs import Leading, iterates

RANK = 5


def centred(n: int, k: int, *, positions: int = 3, seed: int = 0, share: float = 0.75) -> torch.Tensor:
    """(positions, n, k) with directions of which each is a `share` as wide as the one before."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(positions, k, k, generator=generator)).Q
    z = torch.randn(positions, n, k, generator=generator) * share ** torch.arange(k) @ turned
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


def found_in(z: torch.Tensor, *, iterated: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    return Leading(RANK, iterated=iterated)(z)


@pytest.mark.parametrize("wide", [512, 4], ids=["gram", "factors"])
@pytest.mark.parametrize("iterated", [False, True])
@pytest.mark.parametrize(("n", "k"), [(100, 90), (90, 100), (80, 30), (30, 80)])
def test_leading_directions_are_those_of_the_singular_values(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, iterated: bool, wide: int
) -> None:
    monkeypatch.setattr(eigenpairs, "_WIDE", wide)
    check(centred(n, k), *found_in(centred(n, k), iterated=iterated), rtol=1e-3, atol=5e-3)


def test_only_what_is_large_is_iterated_for() -> None:
    assert iterates(320, 1792, 32)
    assert iterates(320, 152, 32)
    assert not iterates(320, 152, 64)
    assert not iterates(100, 1792, 32)


def test_an_iteration_goes_on_where_the_neighbours_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as they are alike: of other positions the directions are found all the same."""
    leading, starts, rounds = Leading(RANK, iterated=True), [], []
    decomposed, factorised = eigenpairs._decomposed, torch.linalg.qr
    monkeypatch.setattr(eigenpairs, "_STILL", 1e-5)
    monkeypatch.setattr(eigenpairs, "_decomposed", lambda side: starts.append(len(side)) or decomposed(side))
    monkeypatch.setattr(torch.linalg, "qr", lambda matrix: rounds.append(len(matrix)) or factorised(matrix))
    one, other, noise = (centred(100, 120, positions=1, seed=seed, share=0.97) for seed in range(3))
    spent = []
    for z in (one, one + 1e-2 * noise, other):
        before = len(rounds)
        check(z, *leading(z), rtol=1e-2, atol=2e-2)
        spent.append(len(rounds) - before)
    assert starts == [1]
    assert spent[1] < spent[2]


def test_the_same_comes_out_each_time_and_no_generator_is_touched() -> None:
    z = centred(100, 100)
    before = torch.get_rng_state()
    one, two = found_in(z), found_in(z)
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
    values, vectors = found_in(z)
    check(z, values, vectors, rtol=1e-3, atol=5e-3)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(RANK).expand(2, -1, -1), rtol=0, atol=1e-3)


def test_a_position_where_nothing_differs_has_no_directions_and_spoils_no_other() -> None:
    z = centred(100, 120)
    z[1:] = 0
    leading = Leading(RANK, iterated=True)
    values, vectors = leading(z)
    assert not values[1:].any()
    assert not vectors[1:].any()
    check(z[:1], values[:1], vectors[:1], rtol=1e-3, atol=5e-3)
    other = centred(100, 120, seed=1)
    check(other, *leading(other), rtol=1e-2, atol=2e-2)


def test_a_position_that_has_nothing_in_common_with_its_neighbour_is_decomposed() -> None:
    """The one differs in some pictures, the other in others: what the one leaves behind sees nothing of the other."""
    both = torch.zeros(2, 100, 120)
    both[0, :50], both[1, 50:] = centred(50, 120, positions=1)[0], centred(50, 120, positions=1, seed=1)[0]
    for leading, blocks in ((Leading(RANK, iterated=True), both.split(1)), (Leading(RANK, iterated=True), [both])):
        found = [leading(z) for z in blocks]
        values, vectors = (torch.cat(part) for part in zip(*found, strict=True))
        check(both, values, vectors, rtol=1e-3, atol=5e-3)


def varied(z: torch.Tensor, *, rank: int, directions: int, amplitude: float) -> torch.Tensor:
    """Z (n, k) with as many directions more, along which pictures lie as none of z's leading ones tells.

    Each is `amplitude` times as wide as the last direction of z that is kept.
    """
    generator = torch.Generator().manual_seed(1)
    leading, widths, _ = torch.linalg.svd(z, full_matrices=False)
    known = leading[:, : rank + 16]
    along = torch.randn(len(z), directions, generator=generator)
    along -= known @ (known.T @ along)
    along = torch.linalg.qr(along - along.mean(0)).Q
    new = torch.linalg.qr(torch.randn(z.shape[1], directions, generator=generator)).Q
    found = z - z @ new @ new.T + amplitude * widths[rank] * along @ new.T
    return found - found.mean(0)


@pytest.mark.parametrize("together", [False, True], ids=["block after block", "in one block"])
@pytest.mark.parametrize("amplitude", [3, 5, 10, 20])
@pytest.mark.parametrize(("rank", "directions"), [(5, 1), (12, 1), (32, 1), (12, 12), (32, 32)])
def test_what_a_neighbour_knew_nothing_of_is_found(
    rank: int, directions: int, amplitude: float, together: bool
) -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(200, 448, generator=generator) * 0.98 ** torch.arange(448)
    z -= z.mean(0)
    both = torch.stack([z, varied(z, rank=rank, directions=directions, amplitude=amplitude)])
    leading = Leading(rank, iterated=True)
    values = torch.cat([leading(block)[0] for block in ([both] if together else both.split(1))])
    variances = torch.linalg.svdvals(both[1].double()).square()[:directions] / 199
    assert (values[1, :directions] / variances).min() > 0.98


@pytest.mark.parametrize("rank", [5, 8, 12, 16, 32])
def test_neighbours_that_see_nothing_are_no_beginning(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Whatever of it the directions at random see."""
    decomposed, matrices = eigenpairs._decomposed, []
    monkeypatch.setattr(eigenpairs, "_decomposed", lambda side: matrices.append(len(side)) or decomposed(side))
    both = torch.zeros(2, 200, 448)
    generator = torch.Generator().manual_seed(0)
    for z, some in zip(both, (slice(100), slice(100, 200)), strict=True):
        z[some] = torch.randn(100, 448, generator=generator)
        z[some] -= z[some].mean(0)
    leading = Leading(rank, iterated=True)
    values = torch.cat([leading(z)[0] for z in both.split(1)])
    assert matrices == [1, 1]
    torch.testing.assert_close(values[1], torch.linalg.svdvals(both[1])[:rank].square() / 199, rtol=1e-3, atol=0)


@pytest.mark.parametrize("iterated", [False, True])
@pytest.mark.parametrize("scale", [1e25, 5e18])
def test_what_is_too_large_to_be_squared_is_refused(iterated: bool, scale: float) -> None:
    """Or to be added up, of which the last one has some rounds to go."""
    with pytest.raises(RecipeError, match="too large: look for what is wrong in --weights"):
        found_in(centred(100, 120, share=0.99) * scale, iterated=iterated)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_squares_of_variances_may_be_beyond_all_numbers(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    monkeypatch.setattr(eigenpairs, "_decomposed", lambda side: (None, torch.eye(side.shape[1]).unsqueeze(0)))
    z = centred(100, 120, positions=1) * scale
    values, vectors = found_in(z)
    check(z / scale, values / scale**2, vectors, rtol=1e-2, atol=5e-2)


def test_what_does_not_come_to_rest_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenpairs, "_ROUNDS", 1)
    z = centred(100, 120)
    check(z, *found_in(z), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("n", "k", "rank", "directions"), [(4, 9, 6, 3), (9, 4, 6, 4), (2, 9, 2, 1), (1, 3, 2, 0)])
def test_directions_that_there_are_not_are_zero(n: int, k: int, rank: int, directions: int) -> None:
    values, vectors = Leading(rank, iterated=False)(centred(n, k))
    assert (values.shape, vectors.shape) == ((3, rank), (3, k, rank))
    assert bool((values[:, :directions] > 0).all())
    assert values[:, directions:].abs().max() < 1e-6
    if n <= k:
        assert not vectors[..., directions:].any()
