"""What was to be reached, and whether this run shows it: ratios, sizes and times, each with the run it asks for."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from speed.contestants import ANOMALIB_OPENVINO, ANOMALIB_TORCH, ANOMAVISION, OURS, OURS_ALONE, bare_name
from speed.results import Results
from speed.spread import Spread, ratio, spread

Outcome = Literal["holds", "does not hold", "not measured"]


@dataclass(frozen=True)
class Goal:
    """`asked` in words, the bound, what was found in the same unit, and what follows from its median."""

    asked: str
    bound: float
    at_least: bool
    found: Spread | None
    unit: str
    outcome: Outcome
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def goals(results: Results) -> list[Goal]:
    """All of them, in order, those without figures too."""
    return [*_against_peers(results), *_against_bare(results), *_of_the_fit(results), *_on_cuda(results)]


def _goal(asked: str, bound: float, found: Spread | None, *, at_least: bool, unit: str = "×", reason: str = "") -> Goal:
    if found is None or reason:
        return Goal(asked, bound, at_least, found, unit, "not measured", reason or "one of the two has no figure")
    held = found.median >= bound if at_least else found.median <= bound
    return Goal(asked, bound, at_least, found, unit, "holds" if held else "does not hold")


def _timed(results: Results, arch: str, source: str, batch: int, above: str, below: str) -> Spread | None:
    """The ratio of two contestants at a case, from repetitions that both have."""
    found = [results.timing(arch, source, batch, name) for name in (above, below)]
    if any(each is None or not each.milliseconds or each.error for each in found):
        return None
    first, second = (each.milliseconds for each in found if each is not None)
    return ratio(first, second)


def _against_peers(results: Results) -> Iterator[Goal]:
    asked = (
        (ANOMALIB_TORCH, 1, 4.0),
        (ANOMALIB_OPENVINO, 1, 1.5),
        (ANOMAVISION, 1, 1.5),
        (ANOMALIB_TORCH, 32, 6.0),
    )
    for peer, batch, bound in asked:
        files = "one JPEG file" if batch == 1 else f"{batch} JPEG files"
        found = _timed(results, "resnet18", "jpeg", batch, peer, OURS)
        reason = "" if found else results.absent.get(peer, "")
        yield _goal(f"1. resnet18, {files}: faster than {peer}", bound, found, at_least=True, reason=reason)


def _against_bare(results: Results) -> Iterator[Goal]:
    dtype = results.machine["precision"]
    for arch in results.architectures() or ["resnet18"]:
        for source, words in (("array", "decoded pictures"), ("small", "decoded pictures of the network's own size")):
            found = _timed(results, arch, source, 8, OURS, bare_name(dtype))
            asked = f"2. {arch}, batch 8 from {words}: time against the bare backbone ({dtype})"
            yield _goal(asked, 1.25, found, at_least=False)


def _of_the_fit(results: Results) -> Iterator[Goal]:
    arch, reason = "wide_resnet50_2", ""
    if (results.image_size, results.images) != (256, 320):
        reason = f"asked for 256 px and 320 images, not {results.image_size} px and {results.images}"
    ours, bare = results.fit(arch, OURS), results.fit(arch, bare_name(results.machine["precision"]))
    load = results.load(arch, OURS)
    fitted = ours is not None and not ours.error
    peak = spread([ours.peak_bytes / 1e9]) if ours is not None and fitted else None
    size = spread([ours.artifact_bytes["jigsight"] / 1e6]) if ours is not None and fitted else None
    alone = results.fit(arch, OURS_ALONE)
    took = ratio(alone.seconds, bare.seconds) if alone is not None and bare is not None and not alone.error else None
    ready = spread(load.seconds) if load is not None and load.seconds else None
    asked = f"3. {arch}, 256 px, 320 images: "
    yield _goal(asked + "peak memory of the fit", 6.0, peak, at_least=False, unit=" GB", reason=reason)
    yield _goal(asked + "fit of the detector against one bare extraction", 1.5, took, at_least=False, reason=reason)
    yield _goal(asked + "artifact", 450.0, size, at_least=False, unit=" MB", reason=reason)
    yield _goal(asked + "from the file to ready", 2.0, ready, at_least=False, unit=" s", reason=reason)


def _on_cuda(results: Results) -> Iterator[Goal]:
    if results.machine.get("gpu") is None:
        return
    dtype = results.machine["precision"]
    for arch in results.architectures():
        for source in ("array", "small"):
            found = _timed(results, arch, source, 32, bare_name(dtype), OURS)
            asked = f"4. {arch}, batch 32 ({source}): rate against the bare backbone's graph ({dtype})"
            yield _goal(asked, 0.8, found, at_least=True)
