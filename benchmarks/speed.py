"""How fast, beside the practical limit and beside the peers? One run, so that its ratios hold.

python benchmarks/speed.py                                       everything: an hour or two on 4 cores
python benchmarks/speed.py --peers none --arch resnet18 --images 32 --repeat 5         a first look: minutes
python benchmarks/speed.py --arch wide_resnet50_2 --image-size 256 --only fit          memory and time of a large fit
python benchmarks/speed.py --arch resnet18 --images 32 --only inference --batch 1      one part after the other

Compared are JigSight with its default Gaussian, the bare backbone cut at the third level, in float32 and in what
JigSight computes in here, anomalib's PaDiM through its Torch and its OpenVINO inferencer, and AnomaVision's PaDiM:
the same network with the same random weights, the same input size, the same pictures, the same number of threads. For
each network: every fit, in a process of its own, with its time, peak memory and artifact; every artifact's load; then
the cases, in which all contestants take turns. The peers get virtual environments of their own in --cache the first
time (12 GB and some minutes); who cannot be installed, loaded or timed, or needs more than --memory-gb, is reported so.
On CUDA (--device) JigSight and the backbone, as a CUDA graph, are timed by events, the peers by the clock until their
answer is in ordinary memory.

The report is OUTPUT/speed.md, speed.json and speed.png, written anew after every case.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from speed.bench import Bench
from speed.contestants import REQUIREMENTS, Contestant, contestants
from speed.goals import goals
from speed.machine import describe, usable_cores
from speed.pictures import prepare
from speed.plot import draw
from speed.report import markdown
from speed.results import Results, replace_text

from models.device import pick_device
from models.errors import JigSightError
from training.benchmark.peer_environment import make_environment
from training.progress import Progress

_SOURCES = ("jpeg", "png", "array", "small")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_what(parser.add_argument_group("what"))
    _add_how(parser.add_argument_group("how"))
    where = parser.add_argument_group("where")
    where.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "jigsight-speed", metavar="DIR")
    where.add_argument("--output", type=Path, default=Path("speed"), metavar="DIR")
    parsed = parser.parse_args(given)
    parsed.arch = parsed.arch or ["resnet18", "wide_resnet50_2"]
    if min(parsed.images, parsed.pictures, parsed.repeat, parsed.passes, parsed.fits, parsed.loads, *parsed.batch) < 1:
        parser.error("--images, --pictures, --batch, --repeat, --passes, --fits and --loads must be at least 1")
    if parsed.threads is not None and parsed.threads < 1:
        parser.error(f"--threads must be at least 1, not {parsed.threads}")
    return parsed


def _add_what(what: argparse._ArgumentGroup) -> None:
    what.add_argument(
        "--arch",
        nargs="+",
        choices=("resnet18", "wide_resnet50_2"),
        metavar="NETWORK",
        help="resnet18 and wide_resnet50_2",
    )
    what.add_argument(
        "--only", choices=("fit", "inference"), help="inference fits all the same; fit loads all the same"
    )
    what.add_argument("--source", nargs="+", choices=_SOURCES, default=_SOURCES, help="small: of the input's size")
    what.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32], help="pictures at once")
    what.add_argument(
        "--peers", nargs="+", choices=("none", *REQUIREMENTS), default=list(REQUIREMENTS), help="by default both"
    )
    what.add_argument("--image-size", type=int, default=224, help="of all networks' inputs, pixels")
    what.add_argument("--images", type=int, default=320, help="to fit to")
    what.add_argument("--pictures", type=int, default=32, help="to judge, in turn")
    what.add_argument("--size", type=int, default=1024, help="of all pictures, in pixels")
    what.add_argument("--anomavision-layers", nargs="+", type=int, default=[0, 1], help="its class's default; 0 to 3")
    what.add_argument("--anomavision-dimensions", type=int, default=50, help="its default")


def _add_how(how: argparse._ArgumentGroup) -> None:
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--threads", type=int, help="of each contestant; by default the cores that this process may use")
    how.add_argument("--repeat", type=int, default=15, help="turns of each contestant at each case")
    how.add_argument("--passes", type=int, default=3, help="in a turn at most, of which the median counts")
    how.add_argument("--fits", type=int, default=1, help="how often each is fitted")
    how.add_argument("--loads", type=int, default=3, help="how often each is loaded, in a new process each time")
    how.add_argument("--peers-as-installed", action="store_true", help="glibc gives their memory back, as by default")
    how.add_argument("--memory-gb", type=float, default=12.0, help="of resident memory: who takes more is killed")


def environments(names: Sequence[str], cache: Path, console: Console) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreters of the peers' environments, and why there are none of others."""
    pythons, missing = {}, {}
    for name in names:
        try:
            pythons[name] = make_environment(
                cache / name, REQUIREMENTS[name], console=console, otherwise="or leave it out with --peers"
            )
        except (JigSightError, OSError) as error:
            missing[name] = f"could not be installed: {error}"
            console.print(missing[name], markup=False, highlight=False)
    return pythons, missing


def measure(given: argparse.Namespace, bench: Bench, results: Results, contestants: Sequence[Contestant]) -> None:
    """Everything, one network after the other, with a report after each step."""
    with TemporaryDirectory(dir=given.cache, prefix="roofline-") as name:
        results.roofline = replace(bench, folder=Path(name)).roofline()
    for arch in given.arch:
        with TemporaryDirectory(dir=given.cache, prefix=f"{arch}-") as name:
            within = replace(bench, folder=Path(name))
            weights = within.weights(arch, contestants[0])
            judges = [each for each in contestants if each.judges]
            fitted = contestants if given.only != "inference" else [each for each in judges if each.role != "bare"]
            fits = {each.fit: each for each in fitted}
            with bench.progress.step(f"{arch} fits", len(fits)) as step:
                for contestant in fits.values():
                    results.fits.append(within.fit(arch, contestant, weights))
                    step.advance(contestant.fit)
                    report(given.output, results)
            batches = [] if given.only == "fit" else given.batch
            for _ in within.infer(arch, judges, weights, results, sources=given.source, batches=batches):
                report(given.output, results)
    report(given.output, results)


def report(output: Path, results: Results) -> None:
    """Write what there is so far."""
    found = goals(results)
    results.write(output / "speed.json", [goal.document() for goal in found])
    replace_text(output / "speed.md", markdown(results, found))
    draw(results, output / "speed.png")


def main() -> None:
    given = arguments()
    console = Console(stderr=True)
    device, threads = pick_device(given.device).type, given.threads or usable_cores()
    given.cache.mkdir(parents=True, exist_ok=True)
    pythons, missing = environments([name for name in given.peers if name != "none"], given.cache, console)
    machine = describe(threads=threads, device=device)
    chosen = partial(
        contestants,
        precision=machine["precision"],
        layers=given.anomavision_layers,
        dimensions=given.anomavision_dimensions,
    )
    results = Results(
        command=f"python benchmarks/speed.py {shlex.join(sys.argv[1:])}".strip(),
        machine=machine,
        image_size=given.image_size,
        images=given.images,
        absent={each.name: missing[each.environment] for each in chosen(peers=list(missing)) if each.environment},
    )
    if results.machine["busy"]:
        load = results.machine["load_average"]
        console.print(f"Something else is at work on this machine (load {load}): ratios are unreliable.")
    bench = prepared(given, Progress(console), pythons=pythons, device=device, threads=threads)
    measure(given, bench, results, chosen(peers=list(pythons)))
    print((given.output / "speed.md").read_text(encoding="utf-8"))


def prepared(
    given: argparse.Namespace, progress: Progress, *, pythons: dict[str, Path], device: str, threads: int
) -> Bench:
    """What measures, with its pictures drawn."""
    with progress.step("pictures", 1):
        pictures = prepare(given.cache, good=given.images, judged=given.pictures, size=given.size)
    return Bench(
        folder=given.cache,
        pictures=pictures,
        pythons=pythons,
        device=device,
        threads=threads,
        image_size=given.image_size,
        limit_bytes=given.memory_gb * 1e9,
        repeat=given.repeat,
        fits=given.fits,
        loads=given.loads,
        passes=given.passes,
        peers_keep_memory=not given.peers_as_installed,
        progress=progress,
    )


if __name__ == "__main__":
    main()
