"""The compact Gaussian against the covariances that it stands for, computed in full and in double precision."""

import copy
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.compact_gaussian import CompactGaussian, CompactGaussianConfig, Pooling, filled_rows
from models.errors import ArtifactError
from models.mfcsam import concatenate
from models.pooling import pooled

CHANNELS = (3, 4, 5)
GRIDS = ((8, 8), (4, 4), (2, 2))
IMAGES, EPSILON = 30, 0.01
D = sum(CHANNELS)
CPU = torch.device("cpu")

Levels = list[Tensor]


def levels(b: int, *, seed: int = 0) -> Levels:
    """Levels whose channels and positions vary to different degrees."""
    random = torch.Generator().manual_seed(seed)
    return [
        1 + l + torch.randn(b, c, *grid, generator=random) * torch.linspace(0.3, 2, c)[:, None, None]
        for l, (c, grid) in enumerate(zip(CHANNELS, GRIDS, strict=True))
    ]


def joined(x: Levels, pooling: int) -> Tensor:
    """Y (b, p, d), float64."""
    return concatenate(pooled(x, pooling)).flatten(2).transpose(1, 2).double()


def covariances(y: Tensor) -> tuple[Tensor, Tensor]:
    """S (p, d, d) of each position, and their average with ε on the diagonal (d, d)."""
    centred = (y - y.mean(0)).transpose(0, 1)
    s = centred.mT @ centred / (len(y) - 1)
    return s, s.mean(0) + EPSILON * torch.eye(D, dtype=torch.float64)


def fitted(*, shrinkage: float = 0.2, pooling: Pooling = 3, rank: int = D, dimensions: int = D) -> CompactGaussian:
    """The formulas of the module's docstring, as they are written there, on all positions at once."""
    good = levels(IMAGES)
    s, average = covariances(joined(good, pooling))
    values, vectors = torch.linalg.eigh(average)
    w = (vectors * values.rsqrt()).flip(1)[:, :dimensions]  # (d, k)
    lengths, directions = torch.linalg.eigh((1 - shrinkage) * w.T @ s @ w)
    lengths, directions = lengths.flip(1)[:, :rank].clamp_min(0), directions.flip(2)[:, :, :rank]
    config = CompactGaussianConfig(dimensions=dimensions, rank=rank, shrinkage=shrinkage, pooling=pooling)
    scorer = CompactGaussian(config, CHANNELS, GRIDS)
    for buffer, level in zip(scorer.means, pooled(good, pooling), strict=True):
        buffer.copy_(level.mean(0))
    for buffer, part in zip(scorer.whitenings, w.split(list(CHANNELS)), strict=True):
        buffer.copy_(part.T)
    scorer.directions = (directions * (lengths / (lengths + shrinkage)).sqrt()[:, None]).float()
    return scorer


def stored(scorer: CompactGaussian) -> CompactGaussian:
    """The same, as an artifact holds it."""
    scorer = copy.deepcopy(scorer)
    wanted = scorer.directions.square().sum(1)
    steps = (127 * scorer.directions / scorer.directions.abs().amax(1, keepdim=True).clamp_min(1e-9)).round()
    scorer.directions = steps.to(torch.int8)
    scorer.corrections.copy_(wanted / steps.square().sum(1).clamp_min(1))
    return scorer


def of_format_2(scorer: CompactGaussian) -> CompactGaussian:
    """The same, as older artifacts hold it."""
    scorer = copy.deepcopy(scorer)
    wanted = scorer.directions.square().sum(1)
    scorer.directions = scorer.directions.half()
    lengths = scorer.directions.float().square().sum(1)
    scorer.corrections.copy_(torch.where(lengths > 0, wanted / lengths, 1))
    return scorer


@pytest.mark.parametrize("pooling", [1, 3])
@pytest.mark.parametrize("shrinkage", [0.03, 0.4, 1.0])
def test_at_full_rank_it_is_the_mahalanobis_distance_of_the_shrunk_covariance(
    shrinkage: float, pooling: Pooling
) -> None:
    known = joined(levels(IMAGES), pooling)
    s, average = covariances(known)
    inverse = torch.linalg.inv((1 - shrinkage) * s + shrinkage * average)
    asked = levels(4, seed=1)
    offset = joined(asked, pooling) - known.mean(0)  # (b, p, d)
    wanted = torch.einsum("bpi,pij,bpj->bp", offset, inverse, offset).sqrt()
    score_map = fitted(shrinkage=shrinkage, pooling=pooling)(asked)
    assert score_map.shape == (4, 8, 8)
    assert score_map.dtype == torch.float32
    torch.testing.assert_close(score_map.flatten(1).double(), wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize("pooling", [1, 3, 5])
def test_whitening_level_by_level_is_whitening_what_is_joined(pooling: Pooling) -> None:
    scorer, asked = fitted(pooling=pooling, dimensions=7, rank=3), levels(3, seed=1)
    whitening = torch.cat(scorer.whitenings, dim=1).double()  # (k, d)
    mean = concatenate([mean.unsqueeze(0) for mean in scorer.means]).flatten(2).transpose(1, 2)
    wanted = (joined(asked, pooling) - mean) @ whitening.T
    assert scorer.whiten(asked).shape == (64, 3, 7)
    torch.testing.assert_close(scorer.whiten(asked).transpose(0, 1).double(), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_known_is_white_on_average() -> None:
    scorer = fitted(pooling=1)
    z = scorer.whiten(levels(IMAGES))
    covariance = torch.einsum("pni,pnj->ij", z, z) / ((IMAGES - 1) * 64)
    whitening = torch.cat(scorer.whitenings, dim=1)
    ridge = EPSILON * whitening @ whitening.T  # what ε adds to what is known
    torch.testing.assert_close(covariance + ridge, torch.eye(D), rtol=0, atol=1e-3)


def turned(scorer: CompactGaussian) -> CompactGaussian:
    """The same Gaussian in axes in which the whitening is upper triangular, as a fit turns it."""
    scorer = copy.deepcopy(scorer)
    whole = torch.cat(scorer.whitenings, dim=1).double()  # (k, d)
    rotation, triangle = torch.linalg.qr(whole)
    for buffer, part in zip(scorer.whitenings, triangle.split(list(CHANNELS), dim=1), strict=True):
        buffer.copy_(part)
    scorer.directions = torch.einsum("ji,pjr->pir", rotation, scorer.directions.double()).float()
    return scorer


@pytest.mark.parametrize("dimensions", [D, 9])
def test_a_triangular_whitening_fills_few_rows_and_gives_the_same_map(dimensions: int) -> None:
    plain, asked = fitted(rank=4, dimensions=dimensions), levels(3, seed=1)
    triangular = turned(plain)
    assert [filled_rows(each) for each in plain.whitenings] == [dimensions] * 3
    assert [filled_rows(each) for each in triangular.whitenings] == [3, 7, dimensions]
    ready = triangular.compute_in(torch.float32, CPU)
    assert [len(each) for each in ready.whitenings] == [3, 7, dimensions]
    for other in (triangular, ready):
        torch.testing.assert_close(other(asked), plain(asked), rtol=1e-3, atol=0)


def test_rows_that_are_filled_are_counted_up_to_the_last_one() -> None:
    whitening = torch.zeros(5, 3)
    assert filled_rows(whitening) == 0
    whitening[2, 1] = -1.0
    assert filled_rows(whitening) == 3


@pytest.mark.parametrize("kept", [stored, of_format_2])
@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])  # its operators run anywhere
def test_computed_in_bfloat16_the_map_moves_by_less_than_a_percent(
    device: str, triangular: bool, kept: Callable[..., CompactGaussian]
) -> None:
    scorer = fitted(rank=4, shrinkage=0.1)
    scorer, asked = kept(turned(scorer) if triangular else scorer), levels(3, seed=1)
    ready = [scorer.compute_in(dtype, torch.device(device)) for dtype in (torch.float32, torch.bfloat16)]
    in_loops = device == "cpu" and kept is stored
    assert [each.layout for each in ready] == (["interleaved"] * 2 if in_loops else ["stored", "unit"])
    single, half = (each(asked) for each in ready)
    assert half.dtype == torch.float32
    torch.testing.assert_close(single, scorer(asked), rtol=1e-4, atol=0)
    assert 1e-5 < float((half / single - 1).abs().mean()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computing_in_another_precision_leaves_the_scorer_as_it_is(dtype: torch.dtype) -> None:
    scorer, asked = stored(turned(fitted(rank=4))), levels(2, seed=1)
    before, state = scorer(asked), {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
    scorer.compute_in(dtype, CPU)(asked)
    for name, tensor in scorer.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(scorer(asked), before)


def test_with_a_shrinkage_of_one_it_is_the_whitened_norm_whatever_the_rank() -> None:
    asked = levels(3, seed=1)
    scorer = fitted(shrinkage=1.0, rank=2)
    assert not scorer.directions.any()
    torch.testing.assert_close(scorer(asked).flatten(1), scorer.whiten(asked).norm(dim=2).T)
    stored(scorer).check()  # nothing was forgotten: there are no directions to fit


def test_fewer_directions_explain_less() -> None:
    asked = levels(3, seed=1)
    maps = [fitted(rank=rank)(asked) for rank in (1, 3, D)]
    assert (maps[0] >= maps[1] - 1e-4).all()
    assert (maps[1] >= maps[2] - 1e-4).all()
    assert maps[0].mean() > 1.05 * maps[2].mean()


@pytest.mark.parametrize("shrinkage", [0.03, 0.2])
@pytest.mark.parametrize("kept", [stored, of_format_2])
def test_rounded_directions_move_a_score_by_little(shrinkage: float, kept: Callable[..., CompactGaussian]) -> None:
    scorer, asked = fitted(shrinkage=shrinkage), levels(8, seed=1)
    rounded = kept(scorer)
    rounded.check()
    # Of 12 dimensions, all of which are explained, nothing else is left but λ/(s + λ).
    torch.testing.assert_close(rounded(asked), scorer(asked), rtol=0.1 if kept is stored else 1e-2, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_never_give_a_finite_score(value: float) -> None:
    scorer, x = stored(fitted()), levels(2, seed=1)
    x[1][1, 3, 2, 2] = value
    first, second = scorer(x).flatten(1).amax(dim=1)
    assert first.isfinite()
    assert not second.isfinite()


def test_an_image_alone_is_scored_as_in_a_batch_and_alike_each_time() -> None:
    scorer, x = stored(fitted(rank=4)), levels(6, seed=1)
    together = scorer(x)
    assert torch.equal(together, scorer(x))
    for index in range(6):
        alone = scorer([level[index : index + 1] for level in x])
        assert torch.allclose(alone[0], together[index], rtol=1e-4)


def test_built_on_meta_it_takes_everything_from_a_state_dict() -> None:
    scorer, x = stored(fitted(rank=4, dimensions=9)), levels(1, seed=1)
    with torch.device("meta"):
        empty = CompactGaussian(scorer.config, CHANNELS, GRIDS)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in empty.state_dict().items()} == {
        "mean1": ((3, 8, 8), torch.float32),
        "mean2": ((4, 4, 4), torch.float32),
        "mean3": ((5, 2, 2), torch.float32),
        "whitening1": ((9, 3), torch.float32),
        "whitening2": ((9, 4), torch.float32),
        "whitening3": ((9, 5), torch.float32),
        "directions": ((64, 9, 4), torch.int8),
        "corrections": ((64, 4), torch.float32),
    }
    assert not list(empty.parameters())
    empty.load_state_dict(scorer.state_dict(), assign=True)
    assert torch.equal(empty(x), scorer(x))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("whitening1", r"scorer\.whitening holds nothing but zeros: it was never fitted"),
        ("whitening3", r"scorer\.whitening holds nothing but zeros: it was never fitted"),
        ("directions", r"scorer\.directions holds nothing but zeros: it was never fitted"),
        ("corrections", r"scorer\.corrections holds nothing but zeros: it was never fitted"),
    ],
)
def test_buffers_of_zeros_are_refused(name: str, reason: str) -> None:
    scorer = stored(fitted(rank=4))
    scorer.check()
    scorer.get_buffer(name).zero_()
    with pytest.raises(ArtifactError, match=reason):
        scorer.check()


def test_a_channel_that_nothing_looks_at_is_no_fault() -> None:
    scorer = stored(fitted(rank=4))
    scorer.whitening2[:, 1] = 0  # as where it is the same in all good parts
    scorer.check()


def test_a_negative_correction_is_refused() -> None:
    scorer = stored(fitted(rank=4))
    scorer.corrections[9, 2] = -1e-6
    with pytest.raises(ArtifactError, match=r"scorer\.corrections holds a negative number"):
        scorer.check()


@pytest.mark.parametrize("kept", [stored, of_format_2])
def test_a_direction_that_explains_more_than_all_is_refused(kept: Callable[..., CompactGaussian]) -> None:
    scorer = kept(fitted(rank=4))
    squared = scorer.directions[5, :, 1].float().square().sum()
    scorer.corrections[5, 1] = 1.02**2 / squared
    with pytest.raises(ArtifactError, match=r"a direction of length 1\.02; none is longer than 1"):
        scorer.check()


def test_a_position_where_good_parts_never_differ_is_no_fault() -> None:
    scorer = stored(fitted(rank=4))
    scorer.directions[7] = 0
    scorer.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 0),
        ("dimensions", 4097),
        ("rank", 0),
        ("rank", 4097),
        ("shrinkage", 0),
        ("shrinkage", 1.01),
        ("shrinkage", float("nan")),
        ("pooling", 2),
        ("pooling", 9),
        ("name", "dense_gaussian"),
        ("surprise", 1),
    ],
)
def test_config_refuses_what_makes_no_sense(field: str, value: object) -> None:
    usual = {"dimensions": 5, "rank": 2, "shrinkage": 0.1, "pooling": 3}
    CompactGaussianConfig.model_validate(usual)
    with pytest.raises(ValidationError, match=field):
        CompactGaussianConfig.model_validate({**usual, field: value})


def test_sizes_that_do_not_fit_are_refused() -> None:
    def built(dimensions: int, rank: int) -> CompactGaussian:
        config = CompactGaussianConfig(dimensions=dimensions, rank=rank, shrinkage=0.1, pooling=1)
        return CompactGaussian(config, CHANNELS, GRIDS)

    with pytest.raises(ValueError, match="12 channels do not make 13 dimensions"):
        built(13, 1)
    with pytest.raises(ValueError, match="no rank 6 in 5 dimensions"):
        built(5, 6)
    with pytest.raises(ValueError, match=r"grid is \(4, 4\), not \(8, 8\)"):
        built(5, 2)(levels(1)[1:])
