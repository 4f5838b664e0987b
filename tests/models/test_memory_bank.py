"""The memory bank against brute force in float64, its re-weighting, and what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from models.errors import ArtifactError
from models.memory_bank import Match, MemoryBank, MemoryBankConfig, nearest, reweighted, reweighting

CHANNELS = (4, 6, 10)
GRIDS = ((8, 8), (4, 4), (2, 2))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def levels(b: int) -> list[Tensor]:
    return [torch.randn(b, c, *grid) for c, grid in zip(CHANNELS, GRIDS, strict=True)]


def fitted(vectors: int = 40, **fields: object) -> MemoryBank:
    config = MemoryBankConfig.model_validate({"vectors": vectors, **fields})
    scorer = MemoryBank(config, CHANNELS, GRIDS)
    scorer.vectors.copy_(torch.randn(vectors, scorer.dimensions) / 2)
    return scorer


def brute(patches: Tensor, bank: Tensor) -> Tensor:
    return (patches.double()[:, None] - bank.double()).norm(dim=2)


def by_the_paper(y: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """Equation 7 for one image's patches (p, d), written out: the map (p,) times w."""
    distances = brute(y, bank)
    every = distances.amin(dim=1)
    patch = int(every.argmax())
    vector = int(distances[patch].argmin())
    around = brute(bank[vector : vector + 1], bank)[0].argsort()[:neighbours]
    w = 1 - distances[patch, vector].exp() / distances[patch, around].exp().sum()
    return every * w


@pytest.mark.parametrize(("q", "m"), [(1, 1), (7, 30), (1500, 30), (5, 2500)])
def test_nearest_is_that_of_brute_force_over_any_number_of_blocks(q: int, m: int) -> None:
    patches, bank = torch.randn(q, 9), torch.randn(m, 9).half()
    found, expected = nearest(patches, bank), brute(patches, bank).min(dim=1)
    assert torch.equal(found.vector, expected.indices)
    assert torch.allclose(found.distance.double(), expected.values, rtol=1e-5)


@pytest.mark.parametrize("without", [slice(0, 10), slice(1000, 1100), slice(30, 2499)])
def test_nearest_leaves_vectors_out(without: slice) -> None:
    patches, bank = torch.randn(50, 3), torch.randn(2500, 3)
    expected = brute(patches, bank)
    expected[:, without] = torch.inf
    assert torch.equal(nearest(patches, bank, without=without).vector, expected.argmin(dim=1))
    assert nearest(patches, bank, without=slice(0, 2500)).distance.eq(torch.inf).all()


def test_a_patch_of_the_bank_is_at_no_distance_however_large_it_is() -> None:
    bank = (torch.randn(200, 16) + 1000).half()
    assert nearest(bank.float(), bank).distance.max() == 0


@pytest.mark.parametrize("neighbours", [2, 9, 100])
def test_map_is_the_papers_score_at_every_patch(neighbours: int) -> None:
    scorer, x = fitted(neighbours=neighbours), levels(3)
    scored, y = scorer(x), scorer.embed(x)
    assert scored.shape == (3, 4, 4)
    assert scored.dtype == torch.float32
    for index in range(3):
        expected = by_the_paper(y[index], scorer.vectors, neighbours)
        assert torch.allclose(scored[index].flatten().double(), expected, rtol=1e-4)


def test_one_neighbour_re_weights_nothing() -> None:
    scorer, x = fitted(neighbours=1), levels(2)
    plain = nearest(scorer.embed(x).flatten(0, 1), scorer.vectors).distance
    assert torch.equal(scorer(x).flatten(), plain)


def test_a_patch_next_to_a_rare_good_one_weighs_more_than_one_next_to_a_common_one() -> None:
    # Two vectors of the bank, both at distance 1 of their patch: one in a crowd, one alone.
    bank = torch.tensor([[0.0, 0.0], [0.1, 0.0], [-0.1, 0.0], [50.0, 0.0]])
    patches = torch.tensor([[0.0, 1.0], [50.0, 1.0]])
    crowd, lone = reweighting(patches, nearest(patches, bank), bank, neighbours=3).tolist()
    assert crowd == pytest.approx(2 / 3, abs=0.01)
    assert lone == pytest.approx(1)


def test_weights_are_finite_and_in_range_at_any_distance() -> None:
    bank, patches = torch.randn(20, 4), torch.randn(6, 4) * torch.tensor([[0.0, 1, 1e2, 1e4, 1e6, 1e8]]).T
    weights = reweighting(patches, nearest(patches, bank), bank, neighbours=9)
    assert ((weights >= 1 - 1 / 9 - 1e-6) & (weights <= 1)).all()


def test_neighbours_are_sought_among_what_is_not_left_out() -> None:
    bank, y = torch.randn(30, 5), torch.randn(1, 12, 5)
    own = slice(4, 21)
    less = torch.cat([bank[: own.start], bank[own.stop :]])
    ours = reweighted(y, nearest(y[0], bank, without=own), bank, neighbours=40, without=own)
    assert torch.allclose(ours, reweighted(y, nearest(y[0], less), less, neighbours=40))
    all_but_one = slice(0, 29)
    match = nearest(y[0], bank, without=all_but_one)
    alone = reweighted(y, match, bank, neighbours=9, without=all_but_one)
    assert torch.equal(alone[0], match.distance)


def test_a_vector_that_the_bank_holds_twice_is_its_own_first_neighbour() -> None:
    bank, patch = torch.tensor([[1.0], [1.0], [9.0]]), torch.tensor([[2.0]])
    for place in (0, 1):
        match = Match(torch.tensor([1.0]), torch.tensor([place]))
        assert float(reweighting(patch, match, bank, neighbours=2)) == pytest.approx(0.5)


def test_embedding_averages_over_nine_and_joins_on_the_first_chosen_level() -> None:
    x = levels(2)
    y = fitted().embed(x)
    assert y.shape == (2, 16, 16)
    padded = F.pad(x[1], (1, 1, 1, 1))
    for row, column in ((0, 0), (1, 2), (3, 3)):
        expected = padded[1, :, row : row + 3, column : column + 3].sum(dim=(1, 2)) / 9
        assert torch.allclose(y[1, row * 4 + column, :6], expected, atol=1e-6)
    third = x[2].sum(dim=(2, 3)) / 9  # of a 2x2 grid, every window holds all of it: the same everywhere
    assert torch.allclose(y[..., 6:], third[:, None].expand(-1, 16, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "grid", "dimensions"), [((1, 2, 3), (8, 8), 20), ((1,), (8, 8), 4), ((3,), (2, 2), 10)]
)
def test_levels_say_which_grid_and_how_many_dimensions(
    chosen: tuple[int, ...], grid: tuple[int, int], dimensions: int
) -> None:
    scorer, x = fitted(levels=chosen), levels(2)
    assert scorer.grid == grid
    assert scorer.embed(x).shape == (2, math.prod(grid), dimensions)
    assert scorer(x).shape == (2, *grid)


@pytest.mark.parametrize(
    "wrong",
    [{"levels": ()}, {"levels": (3, 2)}, {"levels": (2, 2)}, {"levels": (4,)}, {"vectors": 1}, {"neighbours": 0}],
)
def test_config_refuses_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MemoryBankConfig.model_validate({"vectors": 10, **wrong})


def test_config_survives_json() -> None:
    config = MemoryBankConfig(vectors=10, levels=(1, 3))
    assert MemoryBankConfig.model_validate_json(config.model_dump_json()) == config


def test_another_grid_is_refused() -> None:
    x = [level.repeat(1, 1, 2, 1) for level in levels(1)]
    with pytest.raises(ValueError, match=r"\(8, 4\), not \(4, 4\)"):
        fitted().embed(x)


def test_an_image_alone_is_scored_as_in_a_batch() -> None:
    scorer, x = fitted(), levels(8)
    together = scorer(x)
    for index in range(8):
        alone = scorer([level[index : index + 1] for level in x])
        assert torch.allclose(alone[0], together[index], rtol=1e-5)


def test_half_precision_levels_are_scored_in_float32() -> None:
    scorer, x = fitted(), [level.half() for level in levels(1)]
    assert torch.equal(scorer(x), scorer([level.float() for level in x]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_never_give_a_finite_score(value: float) -> None:
    scorer, x = fitted(), levels(2)
    x[1][1, 3, 2, 2] = value
    first, second = scorer(x).flatten(1).amax(dim=1)
    assert first.isfinite()
    assert not second.isfinite()


def test_built_on_meta_it_takes_everything_from_a_state_dict() -> None:
    scorer, x = fitted(), levels(1)
    with torch.device("meta"):
        empty = MemoryBank(scorer.config, CHANNELS, GRIDS)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in empty.state_dict().items()} == {
        "vectors": ((40, 16), torch.float16)
    }
    empty.load_state_dict(scorer.state_dict(), assign=True)
    assert torch.equal(empty(x), scorer(x))


def test_a_bank_that_was_never_fitted_is_refused() -> None:
    scorer = fitted()
    scorer.check()
    with pytest.raises(ArtifactError, match=r"scorer\.vectors .* never fitted"):
        MemoryBank(scorer.config, CHANNELS, GRIDS).check()
