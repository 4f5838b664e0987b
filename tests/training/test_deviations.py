from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.pooling import pooled
from training.deviations import Deviations
from training.features import Features
from training.joining import Joining, Patch

CPU = torch.device("cpu")
EVERYONE, KNOWN, ASKED = np.arange(9), np.array([8, 1, 2, 5]), np.array([5, 0, 8])
SomeFeatures = Callable[..., Features]


@pytest.fixture(autouse=True, params=["loops", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compiled loops, or torch where there are none."""
    if request.param == "torch":
        monkeypatch.setattr("training.deviations.loops.ready_for", lambda _: False)
    return str(request.param)


def whole_rows(features: Features) -> list[list[Patch]]:
    """Each level's own places, a row at a time."""
    return [[Patch(level, row, slice(0, w)) for row in range(h)] for level, (h, w) in enumerate(features.grids)]


@pytest.mark.parametrize("pooling", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_levels_own_are_pooled_less_the_mean_of_those_known(
    some_features: SomeFeatures, pooling: int, dtype: torch.dtype
) -> None:
    features = some_features(9)
    about = Deviations.from_mean(Joining(features, pooling), ASKED, known=KNOWN, device=CPU)
    for patches, level, mean in zip(whole_rows(features), features.batch(EVERYONE), about.pooled_means(), strict=True):
        (near,) = pooled([level.double()], pooling)
        wanted = near[ASKED] - near[KNOWN].mean(0)
        found = torch.stack([about.own(patch, dtype=dtype) for patch in patches])
        assert found.dtype == dtype
        rtol = 2**-8 if dtype == torch.bfloat16 else 0
        torch.testing.assert_close(found.double(), wanted.permute(2, 3, 0, 1), rtol=rtol, atol=1e-5)
        torch.testing.assert_close(mean.double(), near[KNOWN].mean(0), rtol=0, atol=1e-5)


def products(a: Tensor, b: Tensor) -> Tensor:
    return a.double().flatten(0, 1).T @ b.double().flatten(0, 1)


@pytest.mark.parametrize("pooling", [1, 3])
def test_products_on_the_levels_own_grids_are_those_at_all_positions(some_features: SomeFeatures, pooling: int) -> None:
    features = some_features(9)
    joining = Joining(features, pooling)
    about = Deviations.from_mean(joining, EVERYONE, known=EVERYONE, device=CPU)
    y = torch.cat([joining.embed(block, EVERYONE, CPU) for block in joining.blocks(9)]).double()  # (p, n, d)
    parts = (y - y.mean(1, keepdim=True)).split(list(features.channels), dim=2)
    for level, patches in enumerate(whole_rows(features)):
        itself = sum(products(each, each) for each in (about.balanced(patch) for patch in patches))
        torch.testing.assert_close(itself, products(parts[level], parts[level]), rtol=1e-5, atol=1e-3)
        for finer in range(level):
            met = sum(products(about.meeting(finer, patch), about.own(patch)) for patch in patches)
            torch.testing.assert_close(met, products(parts[finer], parts[level]), rtol=1e-5, atol=1e-3)
