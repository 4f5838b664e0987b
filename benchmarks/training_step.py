"""Time epochs of the jigsaw and of the fusion, through `training.loop` and as bare steps on batches that lie ready.

python benchmarks/training_step.py [--arch resnet18] [--stages jigsaw fusion] [--images 64] [--align] [--threads 4]
    [--device cpu] [--json FILE]

Sample parts, 224 px, batches of 32, the recipe `default` (levels 1-2 frozen in the jigsaw, the residual fusion). They
take turns in one process: `epoch`, all of `training.loop` (examples drawn, aligned if `--align`, prepared ahead; the
checkpoint); `bare`, forward, backward and Adam on the first epoch's batches in memory, same precision and layout;
`float32`, the same in single precision, not channels-last, with Adam one tensor after the other.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from models.backbone import ARCHITECTURES, Architecture, build_backbone
from models.detector import build_alignment, build_fusion
from models.preprocess import Preprocess
from training import finetune, fuse
from training.alignments import ANY
from training.batch_norm import estimate_batch_norm
from training.datasets import training_images
from training.feed import Feed
from training.finetune import JigsawTask
from training.fuse import FusionTask
from training.loop import Devices, Task, train
from training.picture_files import read_image
from training.progress import Progress
from training.recipe import Recipe, read_recipe
from training.samples import write_category
from training.synthetic import Synthetic, in_frame, make_tiles
from training.textures import ProceduralTextures

EPOCHS = 2


def examples(folder: Path, recipe: Recipe, *, images: int, aligned: bool) -> Synthetic:
    """Good sample parts, and what draws defects on them."""
    write_category(folder, "flange", train=images, test_good=0, test_defective=0)
    config = recipe.preprocess.model_copy(update={"align": ANY if aligned else None})
    resize = Preprocess(config).resize
    pictures = torch.stack([resize(read_image(path)) for path in training_images(folder, "flange")])
    tiles = make_tiles(pictures, "object", folder=folder)
    return in_frame(Synthetic(tiles, ProceduralTextures(), 0, build_alignment(config)), folder=folder)


def new_task(stage: str, arch: Architecture, source: Synthetic, recipe: Recipe) -> Task:
    """The stage's task, with random weights and statistics of these pictures."""
    torch.manual_seed(0)
    backbone = build_backbone(arch)
    estimate_batch_norm(backbone, source.good_batches(), recipe.preprocess)
    backbone.eval()
    if stage == "jigsaw":
        section = recipe.jigsaw
        return JigsawTask(backbone, arch, source, preprocess=recipe.preprocess, section=section, pretrained=True)
    fusion = build_fusion(recipe.fusion.form, arch, recipe.preprocess)
    assert fusion is not None, "the recipe's form is one"
    return FusionTask(fusion, backbone, arch, source, preprocess=recipe.preprocess)


def bare_epoch(task: Task, adam: torch.optim.Adam, batches: list[tuple[Tensor, ...]]) -> None:
    """Steps on batches that lie on the device."""
    task.set_modes()
    for batch in batches:
        loss = task.loss(task.module, batch).value
        adam.zero_grad()
        loss.backward()
        adam.step()


def compared(task: Task, recipe: Recipe, *, device: str, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds per epoch of each contestant, taking turns; the first turn is not counted."""
    single, bare, looped = copy.deepcopy(task), copy.deepcopy(task), copy.deepcopy(task)
    schedule = recipe.jigsaw.schedule.model_copy(update={"max_epochs": EPOCHS, "patience": EPOCHS})
    with Feed(task, batch_size=schedule.batch_size, seed=0, epochs=range(1)) as feed:
        batches = [tuple(part.to(device) for part in batch) for batch in feed.epoch(0)]
    bare.module.to(device=device, memory_format=torch.channels_last)
    single.module.to(device)
    plain = torch.optim.Adam(single.parameters(schedule.learning_rate), foreach=False)
    fused = torch.optim.Adam(bare.parameters(schedule.learning_rate), fused=True)

    def through_the_loop() -> None:
        checkpoint = folder / "checkpoint.pt"
        checkpoint.unlink(missing_ok=True)
        devices = Devices(accelerator=device)
        train(looped, schedule, seed=0, devices=devices, checkpoint=checkpoint, progress=Progress.silent())

    def repeated(task: Task, adam: torch.optim.Adam, precision: Callable[[], AbstractContextManager[object]]) -> None:
        with precision():
            for _ in range(EPOCHS):
                bare_epoch(task, adam, batches)

    mixed = (lambda: torch.autocast("cuda", torch.bfloat16)) if device == "cuda" else nullcontext
    contestants: dict[str, Callable[[], None]] = {
        "epoch": through_the_loop,
        "bare": lambda: repeated(bare, fused, mixed),
        "float32": lambda: repeated(single, plain, single_precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append((time.perf_counter() - started) / EPOCHS)
    return seconds


@contextmanager
def single_precision() -> Iterator[None]:
    """Within it the tasks compute in float32 whatever the CPU has."""
    kept = finetune.bfloat16_on_cpu
    finetune.bfloat16_on_cpu = fuse.bfloat16_on_cpu = nullcontext
    try:
        yield
    finally:
        finetune.bfloat16_on_cpu = fuse.bfloat16_on_cpu = kept


def main() -> None:
    """A line of Markdown for each network and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--stages", nargs="+", choices=("jigsaw", "fusion"), default=["jigsaw", "fusion"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--align", action="store_true")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe, report = read_recipe("default"), []
    print("| network | stage | ms an example, epoch | bare | epoch / bare (lowest to highest) | bare, float32 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        source = examples(Path(name), recipe, images=given.images, aligned=given.align)
        for arch in given.arch:
            for stage in given.stages:
                task = new_task(stage, arch, source, recipe)
                times = compared(task, recipe, device=given.device, folder=Path(name), repeats=given.repeats)
                ratios = [ours / bare for ours, bare in zip(times["epoch"], times["bare"], strict=True)]
                each = {key: statistics.median(some) / task.size * 1e3 for key, some in times.items()}
                spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                cells = (arch, stage, f"{each['epoch']:.1f}", f"{each['bare']:.1f}", spread, f"{each['float32']:.1f}")
                print(f"| {' | '.join(cells)} |", flush=True)
                report.append({"arch": arch, "stage": stage, "examples": task.size, "seconds": times})
    if given.json is not None:
        given.json.write_text(json.dumps({"arguments": str(given), "figures": report}, indent=1))


if __name__ == "__main__":
    main()
