"""What a recorded run needs of a detector: it never waits for the GPU, and no picture sees another.

Without a GPU, on tensors that only say where they would be.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.alignment import AlignmentConfig
from models.compact_gaussian import CompactGaussianConfig
from models.coupled import CoupledConfig
from models.detector import Detector, DetectorConfig, FusionName, ScorerConfig, build_detector
from models.gaussian import DenseGaussianConfig
from models.half_maps import half_maps
from models.memory_bank import MemoryBankConfig
from models.preprocess import PreprocessConfig

SCORERS: tuple[ScorerConfig, ...] = (
    CompactGaussianConfig(dimensions=24, rank=3, shrinkage=0.1, pooling=3),
    DenseGaussianConfig(channels=20),
    MemoryBankConfig(vectors=1100),
    CoupledConfig(dimensions=6, vectors=20),
)
FRAMES = {
    "plain": PreprocessConfig(image_size=64),
    "aligned": PreprocessConfig(image_size=32, tiles=2, align=AlignmentConfig(name="rotate", along=1.5)),
}


def configurations() -> Iterator[Any]:
    fusions: tuple[FusionName, ...] = ("none", "mfcsam", "mfcsam_residual")
    for scorer in SCORERS:
        for frame in FRAMES:
            for fusion in fusions if scorer is SCORERS[0] else fusions[:1]:
                yield pytest.param(scorer, frame, fusion, id=f"{scorer.name}-{frame}-{fusion}")


every = pytest.mark.parametrize(("scorer", "frame", "fusion"), list(configurations()))


def detector(scorer: ScorerConfig, frame: str, fusion: FusionName) -> Detector:
    """One whose buffers hold something, with a corner ignored."""
    torch.manual_seed(2)
    config = DetectorConfig(arch="resnet18", preprocess=FRAMES[frame], fusion=fusion, scorer=scorer, smoothing=2.0)
    built = build_detector(config).eval().requires_grad_(False)
    for buffer in built.scorer.buffers():
        buffer.copy_(torch.rand(buffer.shape) if buffer.is_floating_point() else buffer)
    assert built.smoothing.keep is not None
    built.smoothing.keep[:4, :5] = False
    return built


class Places(TorchDispatchMode):
    """Notes each operation that something on the CPU goes into or comes out of."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: list[str] = []

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = function(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, given)) if isinstance(each, Tensor)]
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.on_cpu.append(str(function))
        return given


def put_on_gpu(module: nn.Module) -> None:
    """Tensors of these shapes, that would be on a GPU, in place of a module's own."""
    for part in module.modules():
        for tensors in (part._buffers, part._parameters):
            for name, tensor in list(tensors.items()):
                if tensor is not None:
                    placed = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda:0")
                    tensors[name] = nn.Parameter(placed, requires_grad=False) if tensors is part._parameters else placed


@every
def test_nothing_is_copied_to_the_gpu_and_no_shape_depends_on_what_is_there(
    scorer: ScorerConfig, frame: str, fusion: FusionName
) -> None:
    ready = detector(scorer, frame, fusion).for_scoring(torch.device("meta"), torch.float16)
    side = FRAMES[frame].taken
    places = Places()
    with FakeTensorMode(), torch.inference_mode():  # which refuses what would need values: they would be waited for
        put_on_gpu(ready)
        batch = torch.empty(4, 3, side, side, dtype=torch.uint8, device="cuda:0")
        with places:
            scores, maps = half_maps(ready(batch).map)
    assert places.on_cpu == []
    assert scores.shape == (4,)
    assert (maps.dtype, maps.device.type) == (torch.float16, "cuda")


@every
def test_what_fills_up_a_batch_changes_no_other_result(scorer: ScorerConfig, frame: str, fusion: FusionName) -> None:
    ready = detector(scorer, frame, fusion).for_scoring(torch.device("cpu"), torch.float32)
    side = FRAMES[frame].taken
    batch = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        expected = ready(batch)
        for filling in (torch.zeros(3, side, side), torch.randint(0, 256, (3, side, side)), batch[0]):
            batch[3] = filling
            found = ready(batch)
            assert torch.equal(found.map[:3], expected.map[:3])
            assert torch.equal(found.score[:3], expected.score[:3])


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@every
def test_a_fault_in_one_picture_stays_there(scorer: ScorerConfig, frame: str, fusion: FusionName, fault: float) -> None:
    ready = detector(scorer, frame, fusion).for_scoring(torch.device("cpu"), torch.float32)
    config = FRAMES[frame]
    batch = torch.randint(0, 256, (3, 3, config.taken, config.taken), dtype=torch.uint8)

    def spoil(_module: nn.Module, _inputs: Any, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        last = config.tiles**2  # tiles of the last picture
        return tuple(torch.cat([level[:-last], torch.full_like(level[-last:], fault)]) for level in levels)

    with torch.inference_mode():
        expected = ready(batch).map
        ready.backbone.register_forward_hook(spoil)
        found = ready(batch).map
    assert torch.equal(found[:2], expected[:2])
    assert not found[2].isfinite().all(), "it was spoilt"
