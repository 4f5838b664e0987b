"""Time MFCSAM part by part, beside the bare backbone, and its exact forms beside each other.

python benchmarks/fusion.py [--arch wide_resnet50_2 resnet18] [--levels 3 1] [--batches 1 8] [--threads 4]
    [--repeats 5] [--device cpu] [--json FILE]

Random weights, 224 px, float32; medians of repetitions that take turns, in milliseconds a picture, and as a share of
the backbone's. `plain` is position attention as a reader of the formula would write it, with the (p, p) map in memory;
the branches' are all of one shape, so one is timed. `merged` is one call of attention for all four branches,
with one grouped convolution for their twelve projections; `folded` has PᵀK = xᵀ(WpᵀWk)x, the product of both
weights made beforehand.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import ARCHITECTURES, Architecture, build_backbone, channels, grids
from models.mfcsam import MFCSAM, FrequencyChannelAttention, PositionAttention

SIZE = 224


def plain_attention(module: PositionAttention, x: Tensor) -> Tensor:
    """S = softmax(PᵀK), E = V·Sᵀ, with the map in memory."""
    p, k, v = (projection(x).flatten(2) for projection in (module.query, module.key, module.value))
    return (v @ (p.transpose(1, 2) @ k).softmax(2).transpose(1, 2)).reshape(x.shape)


def merged(module: MFCSAM, x: Tensor) -> Tensor:
    """All branches' position attention in one call; an exact form of `MFCSAM.forward`."""
    attended = [branch[1](branch[0](x)) for branch in module.branches]  # type: ignore[index]
    positions = [branch[2] for branch in module.branches]  # type: ignore[index]
    projections = [projection for each in positions for projection in (each.query, each.key, each.value)]
    weight, bias = (torch.cat([getattr(each, name) for each in projections]) for name in ("weight", "bias"))
    b, c, h, w = attended[0].shape
    every = F.conv2d(torch.cat(attended, 1), weight, bias, groups=len(positions))  # (b, 4·3·c, h, w)
    heads = every.permute(0, 2, 3, 1).reshape(b, h * w, len(positions), 3, c)
    query, key, value = heads.permute(3, 0, 2, 1, 4).unbind(0)  # (b, 4, p, c)
    found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return found.transpose(2, 3).reshape(b, len(positions) * c, h, w)


def folded(module: PositionAttention) -> Callable[[Tensor], Tensor]:
    """Position attention with two projections for three; what is constant along a row of the map cancels out."""
    product = module.query.weight[:, :, 0, 0].T @ module.key.weight[:, :, 0, 0]
    offset = module.key.weight[:, :, 0, 0].T @ module.query.bias

    def attend(x: Tensor) -> Tensor:
        key = x.flatten(2).transpose(1, 2).unsqueeze(1)  # (b, 1, p, c)
        value = module.value(x).flatten(2).transpose(1, 2).unsqueeze(1)
        found = F.scaled_dot_product_attention(key @ product + offset, key, value, scale=1.0)
        return found[:, 0].transpose(1, 2).reshape(x.shape)

    return attend


def milliseconds(contestants: Mapping[str, Callable[[], object]], *, repeats: int, device: str) -> dict[str, float]:
    """The median of each, taking turns, after one turn that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            run()  # what ran before has left other things in the caches
            if device == "cuda":
                torch.cuda.synchronize()
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
    contestants["MFCSAM, merged"] = partial(merged, module, x)
    assert torch.allclose(merged(module, x), module(x), rtol=1e-3, atol=1e-4)
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
            contestants["position attention"] = partial(positions, z)
            contestants["position attention, plain"] = partial(plain_attention, positions, z)
            contestants["position attention, folded"] = partial(folded(positions), z)
            assert torch.allclose(folded(positions)(z), positions(z), rtol=1e-3, atol=1e-4)
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
