"""Results as they would be measured, without measuring."""

from collections.abc import Callable

import pytest
from speed.contestants import ANOMALIB_TORCH, OURS, OURS_ALONE
from speed.results import Fit, Load, Results, Timing

MACHINE = {
    "processor": "a processor",
    "threads": 4,
    "load_average": 3.5,
    "precision": "bfloat16",
    "gpu": None,
    "packages": {"torch": "2.8"},
}


@pytest.fixture
def results() -> Callable[..., Results]:
    """A run of two contestants at one case, and of fits; anything may be given."""

    def make(**given: object) -> Results:
        found = Results("python benchmarks/speed.py", MACHINE, image_size=224, images=320)
        found.timings = [
            Timing("resnet18", "jpeg", 1, OURS, [10.0, 12.0, 11.0], [56, 56]),
            Timing("resnet18", "jpeg", 1, ANOMALIB_TORCH, [50.0, 60.0, 55.0], [224, 224], note="a loop"),
        ]
        found.fits = [
            Fit("wide_resnet50_2", OURS, [90.0], {"gaussian": 69.0}, 3 * 10**9, {}, {"jigsight": 428_000_000}),
            Fit("wide_resnet50_2", OURS_ALONE, [30.0], {"gaussian": 9.0}, 3 * 10**9),
            Fit("wide_resnet50_2", "bare backbone, bfloat16", [25.0], {}, 10**9),
            Fit("wide_resnet50_2", "anomalib", peak_bytes=12 * 10**9, error="killed at 12.1 GB of memory"),
        ]
        found.loads = [Load("wide_resnet50_2", OURS, [0.5, 0.6, 0.7], [0.9, 1.0, 1.1], 10**9)]
        for name, value in given.items():
            setattr(found, name, value)
        return found

    return make
