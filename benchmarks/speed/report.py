"""The report in Markdown: whether the goals are reached, then every figure, then how it was come by."""

from collections.abc import Callable, Iterator, Sequence

from speed.contestants import OURS
from speed.goals import Goal
from speed.results import Results
from speed.spread import Spread, ratio, spread

_SOURCES = {
    "jpeg": "JPEG file",
    "png": "PNG file",
    "array": "decoded picture",
    "small": "decoded picture of the network's own size",
}


def markdown(results: Results, goals: Sequence[Goal]) -> str:
    """The whole page."""
    parts = ["# Speed", *_machine(results), *_goals(goals), *_inference(results), *_fits(results), *_loads(results)]
    return "\n".join([*parts, *_notes(results)]) + "\n"


def _machine(results: Results) -> Iterator[str]:
    machine = results.machine
    packages = ", ".join(f"{name} {number}" for name, number in machine.get("packages", {}).items())
    yield ""
    yield f"    {results.command}"
    yield ""
    yield f"- {machine.get('processor')}, {machine.get('memory_gb')} GB"
    yield f"- JigSight computes in {machine.get('precision')}"
    yield f"- {machine.get('threads')} threads each; {machine.get('usable_cores')} cores may be used"
    if machine.get("gpu"):
        yield f"- {machine['gpu']}"
    yield f"- Python {machine.get('python')}, {packages}"
    yield f"- network input {results.image_size} px; fitted to {results.images} pictures; one set of random weights"
    if rates := results.roofline.get("teraflops"):
        products = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items() if rate is not None)
        yield f"- roofline: matrix products in 10^12 operations a second: {products}; memory {_bandwidth(results)}"
    if machine.get("busy"):
        yield f"- **the machine was busy** ({machine['load_average']} threads ran at the start): ratios are unreliable"
    for name, reason in results.absent.items():
        yield f"- {name} takes no part: {reason}"


def _bandwidth(results: Results) -> str:
    return f"{results.roofline['gigabytes']:.1f} GB/s"


def _goals(goals: Sequence[Goal]) -> Iterator[str]:
    yield from _head("Goals", "goal", "wanted", "found", "outcome")
    for goal in goals:
        wanted = f"{'≥' if goal.at_least else '≤'} {goal.bound:g}{goal.unit}"
        found = "-" if goal.found is None else _figure(goal.found, goal.unit)
        outcome = f"{goal.outcome}: {goal.reason}" if goal.reason else f"**{goal.outcome}**"
        yield _row(goal.asked, wanted, found, outcome)


def _inference(results: Results) -> Iterator[str]:
    for arch in results.architectures():
        batches = sorted({batch for name, _, batch in results.cases() if name == arch})
        if not batches:
            continue
        sources = dict.fromkeys(source for name, source, _ in results.cases() if name == arch)
        for source in sources:
            title = f"{arch}, from {_SOURCES.get(source, source)} to score and map, ms an image"
            yield from _head(title, "contestant", *(f"batch {batch}" for batch in batches))
            yield from _cases(results, arch, source, batches)
    yield ""
    yield "In brackets: how many times what JigSight takes, in the same repetitions."


def _cases(results: Results, arch: str, source: str, batches: Sequence[int]) -> Iterator[str]:
    names = dict.fromkeys(each.contestant for each in results.timings if (each.arch, each.source) == (arch, source))
    for name in names:
        cells = []
        for batch in batches:
            timing, ours = (results.timing(arch, source, batch, who) for who in (name, OURS))
            if timing is None:
                cells.append("-")
            elif timing.error or not timing.milliseconds:
                cells.append(f"failed: {timing.error}")
            else:
                cell = _figure(spread(timing.milliseconds).times(1 / batch), "")
                against = ratio(timing.milliseconds, ours.milliseconds) if ours and ours.milliseconds else None
                cells.append(cell if against is None or name == OURS else f"{cell} [{_figure(against, '×')}]")
        yield _row(name, *cells)


def _fits(results: Results) -> Iterator[str]:
    for arch in dict.fromkeys(fit.arch for fit in results.fits):
        title = f"{arch}, fit to {results.images} JPEG files"
        yield from _head(title, "contestant", "seconds", "of JigSight's", "peak memory", "artifact", "parts")
        ours = results.fit(arch, OURS)
        for fit in (fit for fit in results.fits if fit.arch == arch):
            peak = f"{fit.peak_bytes / 1e9:.2f} GB" if fit.peak_bytes else "-"
            if fit.error:
                yield _row(fit.contestant, f"failed: {fit.error}", "-", f"> {peak}", "-", "-")
                continue
            against = ratio(fit.seconds, ours.seconds) if ours is not None and ours.seconds else None
            sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in fit.artifact_bytes.items())
            steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in fit.steps.items())
            share = "-" if against is None or fit.contestant == OURS else _figure(against, "×")
            yield _row(fit.contestant, _figure(spread(fit.seconds), " s"), share, peak, sizes or "-", steps or "-")


def _loads(results: Results) -> Iterator[str]:
    for arch in dict.fromkeys(load.arch for load in results.loads):
        yield from _head(f"{arch}, load", "contestant", "file to ready", "file to first answer", "memory then")
        for load in (load for load in results.loads if load.arch == arch):
            if load.error:
                yield _row(load.contestant, f"failed: {load.error}", "-", "-")
                continue
            times = [_figure(spread(seconds), " s") for seconds in (load.seconds, load.first_seconds)]
            yield _row(load.contestant, *times, f"{load.resident_bytes / 1e9:.2f} GB")


def _notes(results: Results) -> Iterator[str]:
    yield "\n## How\n"
    yield "- A figure is a median (in brackets the quartiles, or the extremes of fewer than five repetitions)."
    yield "- Every contestant is a process, a repetition one turn of each, of which the first 250 ms are not counted."
    yield "- Who begins changes from repetition to repetition: everyone's turn comes one earlier, the first one's last."
    yield "- A ratio is the median of the ratios of the same repetitions."
    yield "- Fits: importing is not counted; peak memory is the process' own, of the fit, exports left out."
    yield "- Of JigSight's fit, 'detector alone' is without its calibration: each part scored by a fit to the others."
    yield "- The bare backbone's 'fit' is one extraction: files read, decoded and resized in threads ahead of it."
    yield "- All have glibc keep the memory that is freed, in one arena: JigSight as its commands do, the backbone in"
    yield "  the same way, the peers by the same settings in their environment, but with --peers-as-installed."
    remarks = dict.fromkeys(f"- {each.contestant}: {each.note}" for each in results.timings if each.note)
    yield from remarks
    yield from dict.fromkeys(f"- {fit.contestant}, fit: {fit.note}" for fit in results.fits if fit.note)
    maps = dict.fromkeys((each.contestant, tuple(each.map)) for each in results.timings if each.map)
    yield from (f"- {name}: map of {'×'.join(str(edge) for edge in edges)}" for name, edges in maps)


def _figure(found: Spread, unit: str) -> str:
    show = _digits(found.median)
    if found.count == 1:
        return f"{show(found.median)}{unit}"
    return f"{show(found.median)}{unit} ({show(found.low)} to {show(found.high)})"


def _digits(value: float) -> Callable[[float], str]:
    places = 2 if value < 10 else 1 if value < 100 else 0
    return lambda each: f"{each:.{places}f}"


def _head(title: str, *columns: str) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield _row(*columns)
    yield "|" + "---|" * len(columns)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
