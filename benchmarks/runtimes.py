"""Runtimes for the same network: torch's layers, our `FusedBackbone`, torch.compile with freezing, and OpenVINO.

python benchmarks/runtimes.py [--openvino DIR] [--arch resnet18 wide_resnet50_2] [--threads 4] [--json FILE]

Each runs the backbone up to its third level, from float32 pictures (b, 3, s, s) in memory to three float32 levels
there, in float32 and in bfloat16, with random weights. They take turns in one process; medians, with what half of the
turns lie between, and ratios to ours of the same turn. "ready" is the time from a backbone in memory to the first
answer, of which compiling is most.

OpenVINO is looked for in DIR (`pip install --target DIR openvino`, or a virtual environment's site-packages) and where
Python looks. torch.compile needs a C++ compiler. What is missing is reported and left out.
"""

import argparse
import copy
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from speed.machine import describe
from speed.spread import Spread, ratio, spread
from torch import Tensor

from models.backbone import ARCHITECTURES, Backbone, build_backbone
from models.folding import fold, normalised
from models.fused_backbone import FusedBackbone

Runtime = Callable[[Tensor], Sequence[Any]]
Maker = Callable[[Backbone, Tensor, torch.dtype], Runtime]  # with pictures of the shape that it will be asked with

OURS = "fused (ours)"
KEEP = 1.3  # a runtime that is faster than ours by this on either backbone would be worth its place
_APART = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # how far from eager float32 levels may be, relatively
CPU = torch.device("cpu")


class Missing(Exception):
    """A runtime that is not to be had here, and why."""


def eager(backbone: Backbone, _pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """Torch's layers, everything as torchvision has it: channels first."""
    network = copy.deepcopy(backbone).to(dtype)
    return lambda x: [level.float() for level in network(x.to(dtype))]


def channels_last_pictures(backbone: Backbone, _pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """Torch's layers on pictures in channels last; weights are laid out for it at each call."""
    network = copy.deepcopy(backbone).to(dtype)
    return lambda x: [level.float() for level in network(x.to(dtype, memory_format=torch.channels_last))]


def channels_last(backbone: Backbone, _pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """Torch's layers, pictures and weights in channels last."""
    network = copy.deepcopy(backbone).to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: [level.float() for level in network(x.to(dtype, memory_format=torch.channels_last))]


def fused(backbone: Backbone, pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """What `Detector.for_scoring` runs."""
    made: Runtime = FusedBackbone(backbone, edge=pictures.shape[-1], dtype=dtype, device=CPU)
    return made


def compiled(backbone: Backbone, _pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """torch.compile with weights as constants: folded, packed for oneDNN, and what surrounds them fused in C++."""
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise Missing("needs a C++ compiler: install g++, or name one in CXX")
    import torch._inductor.config as inductor  # it takes a second, and only this needs it

    inductor.freezing = True
    torch._dynamo.reset()  # or what was compiled for another batch makes this one general in the batch
    network = copy.deepcopy(backbone).to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = torch.compile(network, dynamic=False)
    return lambda x: [level.float() for level in run(x.to(dtype, memory_format=torch.channels_last))]


def openvino(backbone: Backbone, pictures: Tensor, dtype: torch.dtype) -> Runtime:
    """OpenVINO, with pictures of a fixed shape, one stream, and as many threads as torch."""
    try:
        import openvino as runtime
    except ImportError as error:
        raise Missing(f"not installed ({error}): pip install --target DIR openvino, then --openvino DIR") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it traces, which torch would rather have another way
        model = runtime.convert_model(backbone, example_input=pictures, input=list(pictures.shape))
    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
    }
    asking = runtime.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(x: Tensor) -> Sequence[Any]:
        # Neither pictures nor levels are copied; the next call writes over the levels.
        levels = asking.infer([x.numpy()], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(levels[output]) for output in range(len(levels))]

    return run


MAKERS: dict[str, Maker] = {
    "eager": eager,
    "eager, channels-last pictures": channels_last_pictures,
    "eager, channels last": channels_last,
    OURS: fused,
    "torch.compile, frozen": compiled,
    "OpenVINO": openvino,
}


def rounded(arch: Any) -> Backbone:
    """A backbone of random weights that bfloat16 holds, as a detector has it."""
    torch.manual_seed(0)
    backbone = build_backbone(arch).eval().requires_grad_(False)
    fold(backbone)
    for conv, _ in normalised(backbone):
        conv.weight.copy_(conv.weight.bfloat16())
    return backbone


def made_ready(backbone: Backbone, pictures: Tensor, dtype: torch.dtype) -> tuple[dict[str, Runtime], dict[str, Any]]:
    """The runtimes that are to be had; and of each the seconds until its first answer, or why there is none."""
    wanted = backbone(pictures)
    runtimes: dict[str, Runtime] = {}
    said: dict[str, Any] = {}
    for name, maker in MAKERS.items():
        begun = time.perf_counter()
        try:
            run = maker(backbone, pictures, dtype)
            levels = run(pictures)
        except Missing as why:
            said[name] = {"missing": str(why)}
            continue
        said[name] = {"ready_seconds": time.perf_counter() - begun}
        apart = max(float((one - two).norm() / two.norm()) for one, two in zip(levels, wanted, strict=True))
        if apart > _APART[dtype]:
            raise SystemExit(
                f"{name} gives levels that are {apart:.2g} from eager ones: it does not run the same network"
            )
        runtimes[name] = run
    return runtimes, said


def in_turns(runtimes: dict[str, Runtime], pictures: Tensor, *, turns: int) -> dict[str, list[float]]:
    """Milliseconds of each runtime's turns."""
    spent: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(turns):
        for name, run in runtimes.items():
            run(pictures)  # what ran before has left other things in the caches
            begun = time.perf_counter()
            run(pictures)
            spent[name].append(1000 * (time.perf_counter() - begun))
    return spent


def told(value: Spread) -> str:
    return f"{value.median:.1f} ({value.low:.1f} to {value.high:.1f})"


def measured(arch: str, dtype: torch.dtype, batch: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One case, a row for each runtime; printed as it is found."""
    backbone = rounded(arch)
    pictures = torch.randn(batch, 3, given.image_size, given.image_size)
    runtimes, said = made_ready(backbone, pictures, dtype)
    spent = in_turns(runtimes, pictures, turns=given.turns)
    rows = []
    for name in MAKERS:
        row = {"arch": arch, "dtype": str(dtype).removeprefix("torch."), "batch": batch, "runtime": name, **said[name]}
        start = f"| {arch} | {row['dtype']} | {batch} | {name} |"
        if name in spent:
            row |= {"milliseconds": spent[name]}
            times = ratio(spent[name], spent[OURS])
            print(
                f"{start} {told(spread(spent[name]))} | {times.median:.2f} ({times.low:.2f} to {times.high:.2f}) "
                f"| {row['ready_seconds']:.2f} |",
                flush=True,
            )
        else:
            print(f"{start} {row['missing']} | | |", flush=True)
        rows.append(row)
    return rows


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Which runtimes earn their place by `KEEP`, if any does."""
    cases: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in rows:
        if "milliseconds" in row:
            cases.setdefault((row["arch"], row["dtype"], row["batch"]), {})[row["runtime"]] = row["milliseconds"]
    others = {name for case in cases.values() for name in case} - {OURS}
    best = {
        name: max(
            (ratio(case[OURS], case[name]).median, case_name) for case_name, case in cases.items() if name in case
        )
        for name in others
    }
    return "\n".join(
        f"{name}: at best {gain:.2f} times as fast as ours ({', '.join(map(str, case))}); "
        + ("worth keeping." if gain > KEEP else f"not the {KEEP} times that it would be kept for.")
        for name, (gain, case) in sorted(best.items())
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=["resnet18", "wide_resnet50_2"])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--openvino", type=Path, metavar="DIR", help="where OpenVINO is installed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.openvino is not None:
        sys.path.append(str(given.openvino))
    torch.set_num_threads(given.threads)
    print("| backbone | precision | batch | runtime | milliseconds | times ours | ready after, s |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache, torch.inference_mode():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # or what an earlier run compiled makes this one ready at once
        for arch, dtype, batch in product(given.arch, given.dtype, given.batch):
            rows += measured(arch, getattr(torch, dtype), batch, given)
    print(f"\n{verdict(rows)}")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": describe(threads=given.threads, device="cpu"), "rows": rows}))


if __name__ == "__main__":
    main()
