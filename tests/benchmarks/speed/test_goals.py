from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from speed.contestants import ANOMAVISION, OURS, bare_name
from speed.goals import Goal, goals
from speed.results import Results, Timing

Make = Callable[..., Results]


def find(found: Iterable[Goal], *words: str) -> Goal:
    (goal,) = (goal for goal in found if all(word in goal.asked for word in words))
    return goal


def test_a_ratio_beyond_its_bound_holds(results: Make) -> None:
    goal = find(goals(results()), "one JPEG file", "anomalib Torch")
    assert goal.outcome == "holds"
    assert goal.found is not None
    assert goal.found.median == pytest.approx(5.0)


def test_a_ratio_short_of_its_bound_does_not(results: Make) -> None:
    run = results()
    run.timings[1] = replace(run.timings[1], milliseconds=[39.0, 45.0, 42.0])  # 3.9, 3.75 and 3.8 times
    assert find(goals(run), "one JPEG file", "anomalib Torch").outcome == "does not hold"


def test_who_is_absent_or_failed_proves_nothing(results: Make) -> None:
    run = results(absent={ANOMAVISION: "could not be installed: no internet"})
    run.timings[1] = replace(run.timings[1], error="killed")
    found = goals(run)
    assert find(found, "one JPEG file", "anomalib Torch").outcome == "not measured"
    assert find(found, ANOMAVISION).reason == "could not be installed: no internet"


def test_the_detector_is_held_against_the_backbone_in_its_own_precision(results: Make) -> None:
    run = results()
    times = {OURS: 24.0, bare_name("bfloat16"): 20.0, bare_name("float32"): 50.0}
    run.timings = [Timing("resnet18", "array", 8, name, [each] * 5) for name, each in times.items()]
    assert find(goals(run), "2. resnet18", "decoded pictures:").outcome == "holds"
    run.timings[0] = replace(run.timings[0], milliseconds=[26.0] * 5)
    assert find(goals(run), "2. resnet18", "decoded pictures:").outcome == "does not hold"
    run.machine = run.machine | {"precision": "float32"}
    assert find(goals(run), "2. resnet18", "decoded pictures:").outcome == "holds"


def test_a_fit_of_another_size_is_not_what_was_asked(results: Make) -> None:
    goal = find(goals(results(image_size=224)), "peak memory")
    assert goal.outcome == "not measured"
    assert "256 px" in goal.reason
    assert goal.found is not None  # and is shown all the same


def test_the_fit_as_asked(results: Make) -> None:
    found = [goal for goal in goals(results(image_size=256)) if goal.asked.startswith("3.")]
    assert [goal.outcome for goal in found] == ["holds"] * 4
    run = results(image_size=256)
    run.fits[0] = replace(run.fits[0], peak_bytes=7 * 10**9, artifact_bytes={"jigsight": 460_000_000})
    run.fits[1] = replace(run.fits[1], seconds=[40.0])
    run.loads[0] = replace(run.loads[0], seconds=[2.5, 2.6, 1.0])
    assert {goal.outcome for goal in goals(run) if goal.asked.startswith("3.")} == {"does not hold"}


def test_a_gpu_has_a_goal_of_its_own(results: Make) -> None:
    run = results()
    assert not any(goal.asked.startswith("4.") for goal in goals(run))
    run.machine = run.machine | {"gpu": "a GPU", "precision": "float16"}
    run.timings = [
        Timing("resnet18", "array", 32, OURS, [10.0]),
        Timing("resnet18", "array", 32, bare_name("float16"), [9.0]),
        Timing("resnet18", "array", 32, bare_name("float32"), [2.0]),
    ]
    assert find(goals(run), "4. resnet18", "array").outcome == "holds"
    run.machine = run.machine | {"precision": "float32"}
    assert find(goals(run), "4. resnet18", "array").outcome == "does not hold"
