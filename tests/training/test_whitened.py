from collections.abc import Callable

import numpy as np
import pytest
import torch

from training.deviations import Deviations
from training.features import Features
from training.joining import Joining
from training.whitened import whiten

CPU = torch.device("cpu")
D = 12  # channels of `some_features`
EVERYONE, KNOWN = np.array([3, 0, 7, 1, 8]), np.array([3, 0, 7])
SomeFeatures = Callable[..., Features]


def matrix(filled: tuple[int, int, int], channels: tuple[int, ...]) -> torch.Tensor:
    """A whitening (d, d) of which each level fills its first columns."""
    random = torch.Generator().manual_seed(0)
    parts = [torch.randn(c, D, generator=random) for c in channels]
    for part, columns in zip(parts, filled, strict=True):
        part[:, columns:] = 0
    return torch.cat(parts)


@pytest.fixture(autouse=True, params=["loops", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compiled loops, or torch where there are none."""
    if request.param == "torch":
        monkeypatch.setattr("training.whitened.joined.ready_for", lambda _: False)
        monkeypatch.setattr("training.deviations.loops.ready_for", lambda _: False)
    return str(request.param)


@pytest.mark.parametrize("filled", [(4, 8, D), (0, 8, D), (6, 2, D)], ids=["usual", "nothing", "more than the next"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_z_is_the_whitened_deviation_at_each_position(
    some_features: SomeFeatures, dtype: torch.dtype, filled: tuple[int, int, int]
) -> None:
    features = some_features(9)
    joining, whitening = Joining(features, 3), matrix(filled, features.channels)
    whitened = whiten(Deviations.from_mean(joining, EVERYONE, known=KNOWN, device=CPU), whitening, dtype=dtype)
    for block in joining.blocks(len(EVERYONE)):
        y = joining.embed(block, EVERYONE, CPU).double()
        wanted = (y - y[:, : len(KNOWN)].mean(1, keepdim=True)) @ whitening.double()
        z = whitened.z(block)
        assert z.dtype == dtype
        atol = 1e-4 if dtype == torch.float32 else 2e-2 * float(wanted.abs().max())
        torch.testing.assert_close(z.double(), wanted, rtol=0, atol=atol)
