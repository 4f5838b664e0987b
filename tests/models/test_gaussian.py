"""The dense Gaussian against scipy, its packed form, and its channel selection."""

import copy

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from torch import Tensor

from models.errors import ArtifactError, RecipeError
from models.gaussian import (
    DenseGaussian,
    DenseGaussianConfig,
    covariance_factor,
    mahalanobis,
    pack_lower,
    select_channels,
    unpack_lower,
)
from models.mfcsam import concatenate

CHANNELS = (5, 7, 11)
GRID = (4, 6)
GRIDS = (GRID, (2, 3), (1, 2))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def levels(b: int) -> list[Tensor]:
    return [torch.randn(b, c, *size) for c, size in zip(CHANNELS, GRIDS, strict=True)]


def covariances(p: int, d: int) -> Tensor:
    """Regular covariances, another at each position."""
    root = torch.randn(p, d, 2 * d)
    return root @ root.mT / (2 * d) + 0.01 * torch.eye(d)


def packed_factor(covariance: Tensor) -> Tensor:
    """As the scorer holds it."""
    return pack_lower(covariance_factor(covariance)).float()


def unfitted(selected: int = 9) -> DenseGaussian:
    return DenseGaussian(DenseGaussianConfig(channels=selected), CHANNELS, GRIDS)


def fitted(selected: int = 9) -> DenseGaussian:
    scorer = unfitted(selected)
    p = GRID[0] * GRID[1]
    scorer.indices.copy_(select_channels(sum(CHANNELS), selected, seed=5))
    scorer.mean.copy_(torch.randn(p, selected))
    scorer.whitening.copy_(packed_factor(covariances(p, selected)))
    return scorer


def test_distance_is_scipys() -> None:
    b, p, d = 3, 10, 6
    y, mean, covariance = torch.randn(b, p, d), torch.randn(p, d), covariances(p, d)
    ours = mahalanobis(y, mean, packed_factor(covariance))
    assert ours.shape == (b, p)
    for i in range(b):
        for j in range(p):
            inverse = np.linalg.inv(covariance[j].double().numpy())
            assert ours[i, j] == pytest.approx(distance.mahalanobis(y[i, j], mean[j], inverse), rel=1e-4)


def test_distance_is_the_same_over_many_blocks_of_positions() -> None:
    p, d = 40, 300  # 11 positions a block
    y, mean = torch.randn(2, p, d), torch.randn(p, d)
    whitening = torch.randn(p, d * (d + 1) // 2)
    whole = torch.einsum("pij,bpj->bpi", unpack_lower(whitening, d), y - mean).norm(dim=-1)
    assert torch.allclose(mahalanobis(y, mean, whitening), whole, rtol=1e-4)


def test_distance_refuses_features_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 5\)"):
        mahalanobis(torch.zeros(2, 4, 5), torch.zeros(4, 6), torch.zeros(4, 21))


def test_packing_keeps_the_lower_triangle_row_by_row() -> None:
    matrix = torch.tensor([[[1.0, 0, 0], [2, 3, 0], [4, 5, 6]]])
    assert pack_lower(matrix).tolist() == [[1, 2, 3, 4, 5, 6]]
    assert torch.equal(unpack_lower(pack_lower(matrix), 3), matrix)


@pytest.mark.parametrize("d", [1, 2, 17])
def test_packing_and_unpacking_are_inverse(d: int) -> None:
    packed = torch.randn(4, d * (d + 1) // 2)
    assert torch.equal(pack_lower(unpack_lower(packed, d)), packed)
    lower = torch.randn(4, d, d).tril()
    assert torch.equal(unpack_lower(pack_lower(lower), d), lower)


def test_factor_whitens_its_covariance() -> None:
    covariance = covariances(30, 200).double()
    w = covariance_factor(covariance)
    assert w.dtype == torch.float64
    assert torch.equal(w, w.tril())
    assert torch.allclose(w @ covariance @ w.mT, torch.eye(200).double().expand(30, -1, -1), atol=1e-9)


def test_factor_survives_fewer_images_than_channels() -> None:
    d = 64
    few = torch.randn(1, 5, d) * 30
    covariance = few.mT @ few / 4 + 0.01 * torch.eye(d)
    y = torch.randn(1, 1, d)
    ours = mahalanobis(y, torch.zeros(1, d), packed_factor(covariance))
    exact = (y[0] @ torch.linalg.inv(covariance[0].double()).float() @ y[0].T).sqrt()
    assert torch.allclose(ours, exact, rtol=1e-3)


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_factor_counts_the_positions_that_are_not_positive_definite(value: float) -> None:
    covariance = torch.eye(30).repeat(20, 1, 1)
    covariance[[7, 13], 4, 4] = value
    with pytest.raises(RecipeError, match=r"at 2 of 20 positions .* raise scorer\.epsilon"):
        covariance_factor(covariance)


def test_selection_is_seeded_sorted_and_distinct() -> None:
    indices = select_channels(1792, 550, seed=1)
    assert indices.dtype == torch.int64
    assert len(indices) == len(indices.unique()) == 550
    assert torch.equal(indices, indices.sort().values)
    assert 0 <= indices[0] < 100
    assert 1692 < indices[-1] < 1792
    assert torch.equal(indices, select_channels(1792, 550, seed=1))
    assert not torch.equal(indices, select_channels(1792, 550, seed=2))


def test_selection_takes_all_where_there_are_no_more() -> None:
    assert torch.equal(select_channels(152, 550, seed=0), torch.arange(152))
    with pytest.raises(RecipeError, match="not 0"):
        select_channels(152, 0, seed=0)


@pytest.mark.parametrize("selected", [1, 9, sum(CHANNELS)])
def test_embedding_is_a_selection_of_the_concatenation(selected: int) -> None:
    scorer, x = fitted(selected), levels(2)
    everything = concatenate(x).flatten(2).transpose(1, 2)  # (b, p, all channels)
    assert torch.allclose(scorer.embed(x), everything[..., scorer.indices], atol=1e-6)


@pytest.mark.parametrize("selected", [1, 9, 23])
def test_settled_it_is_the_same(selected: int) -> None:
    scorer = fitted(selected)
    settled, given = scorer.settled(), levels(2)
    assert torch.equal(settled(given), scorer(given))
    assert settled.state_dict().keys() == scorer.state_dict().keys()
    assert settled.whitening.data_ptr() == scorer.whitening.data_ptr(), "it is by far the largest"
    scorer.indices.copy_(torch.arange(selected))
    assert torch.equal(scorer.embed(given), concatenate(given).flatten(2).mT[..., :selected])


def test_embedding_refuses_another_grid() -> None:
    x = [level.repeat(1, 1, 2, 1) for level in levels(1)]
    with pytest.raises(ValueError, match=r"\(8, 6\), not \(4, 6\)"):
        fitted().embed(x)


def test_forward_is_a_map_of_distances() -> None:
    scorer, x = fitted(), levels(2)
    scored = scorer(x)
    assert scored.shape == (2, *GRID)
    assert scored.dtype == torch.float32
    y, row, column = scorer.embed(x), 2, 5
    position = row * GRID[1] + column
    w = unpack_lower(scorer.whitening, 9)[position]
    assert torch.allclose(scored[1, row, column], (w @ (y[1, position] - scorer.mean[position])).norm())


def test_half_precision_levels_are_scored_in_float32() -> None:
    scorer, x = fitted(), [level.half() for level in levels(1)]
    assert scorer(x).dtype == torch.float32
    assert torch.allclose(scorer(x), scorer([level.float() for level in x]), rtol=1e-6)


def test_an_image_alone_is_scored_as_in_a_batch() -> None:
    scorer, x = fitted(), levels(8)
    together = scorer(x)
    for index in range(8):
        alone = scorer([level[index : index + 1] for level in x])
        assert torch.allclose(alone[0], together[index], rtol=1e-5)


def test_built_on_meta_it_takes_everything_from_a_state_dict() -> None:
    scorer, x = fitted(), levels(1)
    with torch.device("meta"):
        empty = unfitted()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in empty.state_dict().items()} == {
        "indices": ((9,), torch.int64),
        "mean": ((24, 9), torch.float32),
        "whitening": ((24, 45), torch.float32),
    }
    empty.load_state_dict(scorer.state_dict(), assign=True)
    assert torch.equal(empty(x), scorer(x))


def test_copies_and_reloads_leave_nothing_stale() -> None:
    scorer, x = fitted(), levels(1)
    before = scorer(x)
    twin = copy.deepcopy(scorer)
    assert torch.equal(twin(x), before)
    twin.load_state_dict({**scorer.state_dict(), "whitening": 2 * scorer.whitening})
    assert torch.allclose(twin(x), 2 * before)
    assert torch.equal(scorer(x), before)


def test_more_channels_than_there_are_cannot_be_selected() -> None:
    with pytest.raises(ValueError, match="24 channels cannot be selected out of 23"):
        unfitted(24)


def test_what_was_never_fitted_is_refused() -> None:
    fitted().check()
    with pytest.raises(ArtifactError, match=r"scorer\.whitening has a diagonal that is not positive: it was never"):
        unfitted().check()


@pytest.mark.parametrize("indices", [[1, 0, 2], [0, 0, 1], [-1, 0, 1], [0, 1, 23]])
def test_channels_that_cannot_be_are_refused(indices: list[int]) -> None:
    scorer = fitted(3)
    scorer.indices.copy_(torch.tensor(indices))
    with pytest.raises(ArtifactError, match=r"scorer\.indices must hold ascending channel numbers from 0 to 22"):
        scorer.check()
