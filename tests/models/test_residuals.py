"""The distance beyond the directions, against itself in double precision, where little of a difference is left too."""

import pytest
import torch
from torch import Tensor

from models import residuals
from models.residuals import residual, residual_in_half

P, K, R, SHRINKAGE = 60, 200, 16, 0.03


def test_corrections_are_factors_of_what_each_direction_explains() -> None:
    z = torch.tensor([[[3.0, 4.0, 5.0]]])
    directions, corrections = torch.eye(3)[None, :, :2] / 2, torch.tensor([[2.0, 0.5]])
    wanted = ((9 * (1 - 2 / 4) + 16 * (1 - 0.5 / 4) + 25) / 0.1) ** 0.5
    assert float(residual(z, directions, corrections, shrinkage=0.1)) == pytest.approx(wanted)


def test_the_residual_is_the_same_over_many_blocks_and_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    z, directions = torch.randn(9, 2, 5), torch.nn.functional.normalize(torch.randn(9, 5, 1), dim=1)
    z[4] = 7 * directions[4, :, 0]  # all of it explained
    explained = torch.einsum("pbk,pkr->pbr", z, directions).square().sum(2)
    wanted = ((z.square().sum(2) - explained).clamp_min(0) / 0.5).sqrt()
    corrections = torch.ones(9, 1)
    whole = residual(z, directions, corrections, shrinkage=0.5)
    monkeypatch.setattr(residuals, "_BLOCK", 2 * 5)  # two positions
    assert torch.allclose(whole, wanted, atol=1e-2)
    torch.testing.assert_close(residual(z, directions, corrections, shrinkage=0.5), whole)
    assert whole.isfinite().all()
    assert residual(z.double(), directions, corrections, shrinkage=0.5).dtype == torch.float64


@pytest.mark.parametrize("huge", [1e16, 1e17, 1e18, 1e19, 1e20, 1e30])
def test_what_is_larger_than_can_be_reckoned_with_is_never_near(huge: float) -> None:
    unit, variances = directions_of(1.0)
    z = huge * torch.randn(P, 3, K, generator=torch.Generator().manual_seed(1))
    assert not (residual(z, unit.float(), 1 - variances, shrinkage=SHRINKAGE) < huge).any()
    found = residual_in_half(z.bfloat16(), unit, variances, shrinkage=SHRINKAGE)
    assert not (found < huge).any()  # what is not a number is a fault


def directions_of(s: float) -> tuple[Tensor, Tensor]:
    """Orthonormal directions (p, k, r) as bfloat16 holds them, and variances (p, r), where good parts vary by s."""
    random = torch.Generator().manual_seed(0)
    unit = torch.linalg.qr(torch.randn(P, K, R, generator=random)).Q
    return unit.bfloat16(), torch.full((P, R), SHRINKAGE / (s + SHRINKAGE))


def exact(z: Tensor, directions: Tensor, variances: Tensor) -> Tensor:
    """M in double precision, of directions that are orthonormal again."""
    unit = torch.linalg.qr(directions.double()).Q
    along = torch.bmm(z.double(), unit).square()
    left = z.double().square().sum(2) - (along * (1 - variances.double()).unsqueeze(1)).sum(2)
    return (left / SHRINKAGE).sqrt()


@pytest.mark.parametrize("s", [1.0, 10.0, 100.0, 1000.0])
def test_half_precision_knows_a_good_part(s: float) -> None:
    directions, variances = directions_of(s)
    random = torch.Generator().manual_seed(1)
    inside = torch.randn(P, 3, R, generator=random) @ directions.float().transpose(1, 2) * s**0.5
    z = (inside + SHRINKAGE**0.5 * torch.randn(P, 3, K, generator=random)).bfloat16()
    found = residual_in_half(z, directions, variances, shrinkage=SHRINKAGE)
    assert found.dtype == torch.float32
    # What rounding z itself does is part of both; what the directions' does only adds.
    ratio = found / exact(z, directions, variances)
    assert ratio.min() > 0.99
    assert ratio.max() < 1.01 + 2e-3 * s**0.5


@pytest.mark.parametrize("s", [1.0, 10.0, 100.0, 1000.0])
def test_what_lies_far_out_where_good_parts_vary_is_never_near(s: float) -> None:
    """The difference would leave nothing of it, or less."""
    directions, variances = directions_of(s)
    random = torch.Generator().manual_seed(2)
    out = 30 * s**0.5 * directions.float()[:, :, :1].transpose(1, 2)
    z = (out + SHRINKAGE**0.5 * torch.randn(P, 1, K, generator=random)).bfloat16()
    found = residual_in_half(z, directions, variances, shrinkage=SHRINKAGE)
    assert (found > 0.98 * exact(z, directions, variances)).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_fault_stays_one_in_half_precision(value: float) -> None:
    directions, variances = directions_of(1.0)
    z = torch.randn(P, 2, K).bfloat16()
    z[3, 1, 5] = value
    found = residual_in_half(z, directions, variances, shrinkage=SHRINKAGE)
    assert not found[3, 1].isfinite()
    assert found.isfinite().sum() == found.numel() - 1
