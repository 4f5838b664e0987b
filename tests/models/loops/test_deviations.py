from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.loops.deviations import Weights, deviations

RANDOM = torch.Generator().manual_seed(0)
LEVEL = 3 + torch.randn(5, 6, 7, 4, generator=RANDOM)
MEAN = 3 + torch.randn(5, 6, 4, generator=RANDOM)
SOME = np.array([6, 0, 3])


def weights(rows: int, columns: int, k: int, *, top: int = 1, left: int = 2) -> Weights:
    across = torch.rand(k, columns, generator=RANDOM)
    return Weights(top, torch.rand(rows, generator=RANDOM), left, across * (across > 0.3))


def expected(level: Tensor, pictures: Any, given: Weights) -> Tensor:
    top, down, left, across = given
    far = (level.double() - MEAN.double().unsqueeze(2))[:, :, torch.from_numpy(pictures)]
    lines = far[top : top + len(down), left : left + across.shape[1]]
    return torch.einsum("y,kx,yxmc->kmc", down.double(), across.double(), lines)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("pictures", [SOME, np.arange(7)], ids=["some", "all"])
def test_rows_and_columns_less_the_mean_are_weighted_added_and_rounded_once(
    dtype: torch.dtype, kept: torch.dtype, rows: int, pictures: Any
) -> None:
    level, given = LEVEL.to(kept), weights(rows, 3, 2)
    found = deviations(level, MEAN, pictures, given, dtype=dtype)
    assert (found.dtype, found.shape) == (dtype, (2, len(pictures), 4))
    # In bfloat16 half a step of its 8 bits.
    rtol = 2**-8 if dtype == torch.bfloat16 else 0
    torch.testing.assert_close(found.double(), expected(level, pictures, given), rtol=rtol, atol=1e-5)


def test_what_is_not_finite_stays_that_where_it_takes_part() -> None:
    level = LEVEL.clone()
    level[2, 3, 6, 1] = torch.nan
    across = torch.tensor([[0.5, 0.5, 0], [0, 0, 1]])
    found = deviations(level, MEAN, SOME, Weights(1, torch.ones(3), 2, across), dtype=torch.float32)
    assert found.isnan().nonzero().tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    "change",
    [
        {"level": LEVEL[:, :, :, :3]},
        {"level": LEVEL.transpose(0, 1)},
        {"mean": MEAN[:4]},
        {"pictures": np.array([7])},
        {"pictures": np.array([-1])},
        {"weights": weights(5, 3, 2, top=1)},
        {"weights": weights(2, 3, 2, left=4)},
        {"weights": weights(2, 3, 2, top=-1)},
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any]) -> None:
    asked = {"level": LEVEL, "mean": MEAN, "pictures": SOME, "weights": weights(2, 3, 2)} | change
    with pytest.raises(ValueError, match="do not go"):
        deviations(*asked.values(), dtype=torch.float32)
