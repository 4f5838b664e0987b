"""Time MFCSAM part by part, beside the bare backbone, and its exact forms beside each other.

python benchmarks/fusion.py [--arch wide_resnet50_2 resnet18] [--levels 3 1] [--batches 1 8] [--threads 4]
    [--repeats 5] [--device cpu] [--json FILE]

Random weights, 224 px, float32; medians of repetitions that take turns, in milliseconds a picture. `plain` forms are
what a reader of the formulas would write: three projections, DANet's softmax of the stored (p, p) map, pooling by
einsum over (b, g, c/g, h, w).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from models.backbone import ARCHITECTURES, Architecture, build_backbone, channels, grids
from models.mfcsam import MFCSAM, FrequencyChannelAttention, PositionAttention

SIZE = 224


def plain_attention(module: PositionAttention, x: Tensor) -> Tensor:
    """S = softmax(PᵀK), E = V·Sᵀ, with the map in memory."""
    p, k, v = (projection(x).flatten(2) for projection in (module.query, module.key, module.value))
    return (v @ (p.transpose(1, 2) @ k).softmax(2).transpose(1, 2)).reshape(x.shape)


def plain_frequencies(module: FrequencyChannelAttention, x: Tensor) -> Tensor:
    """The gate with its pooling as an einsum."""
    b, c, h, w = x.shape
    grouped = x.reshape(b, len(module.basis), -1, h, w)
    pooled = torch.einsum("bgchw,ghw->bgc", grouped, module.basis).reshape(b, c)
    gate: Tensor = module.gate(pooled)
    return x * gate[:, :, None, None]


def milliseconds(contestants: Mapping[str, Callable[[], object]], *, repeats: int, device: str) -> dict[str, float]:
    """The median of each, taking turns, after one turn that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(some) for name, some in times.items()}


def parts(module: MFCSAM, x: Tensor) -> dict[str, Callable[[], object]]:
    """What an MFCSAM consists of, each on what it gets."""
    contestants: dict[str, Callable[[], object]] = {"MFCSAM": partial(module, x)}
    for branch in module.branches:
        assert isinstance(branch, nn.Sequential)
        convolution, frequencies, positions = branch
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(frequencies, FrequencyChannelAttention)
        assert isinstance(positions, PositionAttention)
        size = convolution.kernel_size[0]
        y = convolution(x)
        z = frequencies(y)
        contestants[f"{size}x{size} convolution, {convolution.groups} groups"] = partial(convolution, x)
        if size == 3:  # of the same shape in every branch
            contestants["frequency attention"] = partial(frequencies, y)
            contestants["frequency attention, plain"] = partial(plain_frequencies, frequencies, y)
            contestants["position attention"] = partial(positions, z)
            contestants["position attention, plain"] = partial(plain_attention, positions, z)
    return contestants


@torch.inference_mode()
def main() -> None:
    """A table for each network, level and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=["wide_resnet50_2", "resnet18"])
    parser.add_argument("--levels", nargs="+", type=int, choices=(1, 3), default=[3, 1])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    report = []
    for arch in given.arch:
        for batch in given.batches:
            times = _measured(arch, batch, levels=given.levels, repeats=given.repeats, device=given.device)
            for name, each in times.items():
                print(
                    f"| {arch} | {batch} | {name} | {each / batch:.2f} | {each / times['backbone']:.3f} |", flush=True
                )
            report.append({"arch": arch, "batch": batch, "milliseconds": times})
    if given.json is not None:
        given.json.write_text(json.dumps({"arguments": str(given), "figures": report}, indent=1))


def _measured(arch: Architecture, batch: int, *, levels: list[int], repeats: int, device: str) -> dict[str, float]:
    torch.manual_seed(0)
    backbone = build_backbone(arch).eval().to(device=device, memory_format=torch.channels_last)
    pictures = torch.randn(batch, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
    contestants: dict[str, Callable[[], object]] = {"backbone": partial(backbone, pictures)}
    found = backbone(pictures)
    for level in levels:
        x = found[level - 1]
        module = MFCSAM(channels(arch)[level - 1], grids(SIZE)[level - 1]).eval().to(device)
        contestants |= {f"X{level}: {name}": run for name, run in parts(module, x / x.std()).items()}
    return milliseconds(contestants, repeats=repeats, device=device)


if __name__ == "__main__":
    main()
