"""Blocks on a GPU are few, and change no result. On tensors that only say where they would be."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models import blocks, coupled, gaussian, memory_bank
from models.coupled import Coupled, CoupledConfig
from models.gaussian import mahalanobis
from models.memory_bank import nearest

GRIDS = ((56, 56), (28, 28), (14, 14))


class Kernels(TorchDispatchMode):
    """Counts operations, each of which is a kernel or so."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def of_mahalanobis(device: str) -> Tensor:
    d = 152
    mean, whitening = torch.empty(3136, d, device=device), torch.empty(3136, d * (d + 1) // 2, device=device)
    return mahalanobis(torch.empty(32, 3136, d, device=device), mean, whitening)


def of_a_bank(device: str) -> Tensor:
    bank = torch.empty(10_000, 1536, dtype=torch.float16, device=device)
    return nearest(torch.empty(32 * 784, 1536, device=device), bank).distance


def of_coupled(device: str) -> Tensor:
    config = CoupledConfig(dimensions=100, vectors=3136)
    with torch.device(device):
        scorer = Coupled(config, (64, 128, 256), GRIDS)
    channels = zip((64, 128, 256), GRIDS, strict=True)
    return scorer([torch.empty(32, c, *grid, device=device) for c, grid in channels])


@pytest.mark.parametrize("scores", [of_mahalanobis, of_a_bank, of_coupled])
def test_a_gpu_is_asked_for_few_kernels(scores: Any) -> None:
    kernels = Kernels()
    with FakeTensorMode(), torch.inference_mode(), kernels:
        scores("cuda:0")
    assert kernels.count < 250


def test_the_size_of_a_block_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    y, mean, packed = torch.randn(3, 50, 6), torch.randn(50, 6), torch.randn(50, 21)
    patches, bank = torch.randn(70, 8), torch.randn(90, 8).half()
    scorer = Coupled(CoupledConfig(dimensions=5, vectors=20), (4, 6, 8), ((8, 8), (4, 4), (2, 2)))
    for buffer in scorer.buffers():
        buffer.copy_(torch.randn(buffer.shape))
    levels = [torch.randn(5, c, side, side) for c, side in ((4, 8), (6, 4), (8, 2))]
    expected = mahalanobis(y, mean, packed), nearest(patches, bank), scorer(levels)

    def chosen(_device: torch.device, *, otherwise: int) -> int:
        return 3000

    for module in (gaussian, memory_bank, coupled):
        monkeypatch.setattr(module, blocks.floats_at_once.__name__, chosen)
    monkeypatch.setattr(memory_bank, "_BLOCK_VECTORS", 90)
    found = mahalanobis(y, mean, packed), nearest(patches, bank), scorer(levels)
    assert torch.allclose(found[0], expected[0])
    assert torch.equal(found[1].vector, expected[1].vector)
    assert torch.allclose(found[2], expected[2], rtol=1e-4)
