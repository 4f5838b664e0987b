from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.loops.joined import joined

GRID = (8, 8)


def shares(dtype: torch.dtype, *, d: tuple[int, int, int] = (3, 5, 9), n: int = 4) -> list[Tensor]:
    """Those of n pictures, of three levels (h_l, w_l, n, d_l)."""
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(edge, edge, n, each, generator=random).to(dtype) for edge, each in zip((8, 4, 2), d, strict=True)
    ]


def expected(parts: list[Tensor]) -> Tensor:
    """Z at all positions, (h, w, n, d) float64."""
    z = torch.zeros(*GRID, parts[0].shape[2], parts[-1].shape[3], dtype=torch.float64)
    for part in (part for part in parts if part.shape[3]):
        fine = F.interpolate(part.double().permute(2, 3, 0, 1), GRID, mode="bilinear", align_corners=False)
        z[..., : part.shape[3]] += fine.permute(2, 3, 0, 1)
    return z


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("d", [(3, 5, 9), (0, 5, 9), (9, 9, 9)])
def test_shares_are_upsampled_and_added_and_rounded_once(dtype: torch.dtype, k: int, d: tuple[int, int, int]) -> None:
    parts = shares(dtype, d=d)
    fine, *coarse = parts
    for row in range(8):
        for left in range(8 - k + 1):
            z = joined(fine[row, left : left + k], coarse, row=row, left=left, grid=GRID)
            assert z.dtype == dtype
            wanted = expected(parts)[row, left : left + k]
            # In bfloat16 half a step of its 8 bits.
            torch.testing.assert_close(z.double(), wanted, rtol=2**-8 if dtype == torch.bfloat16 else 0, atol=2e-6)


def test_what_is_not_finite_stays_that_where_it_takes_part() -> None:
    fine, *coarse = shares(torch.bfloat16)
    coarse[1][0, 0, 2, 7] = torch.nan
    faulty = joined(fine[0], coarse, row=0, left=0, grid=GRID).isnan()
    assert faulty.nonzero()[:, 1:].unique(dim=0).tolist() == [[2, 7]]
    assert faulty[:, 2, 7].tolist() == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"left": 6},
        {"left": -1},
        {"row": 8},
        {"fine": torch.zeros(3, 5, 3)},
        {"fine": torch.zeros(3, 4, 6)},
        {"fine": torch.zeros(3, 4, 3, dtype=torch.bfloat16)},
        {"coarse": shares(torch.float32, d=(3, 9, 5))[1:]},
    ],
)
def test_shares_that_do_not_go_together_are_refused(change: dict[str, Any]) -> None:
    fine, *coarse = shares(torch.float32)
    asked = {"fine": fine[0, :3], "coarse": coarse, "row": 0, "left": 0, "grid": GRID} | change
    with pytest.raises(ValueError, match="do not go together"):
        joined(asked.pop("fine"), asked.pop("coarse"), **asked)
