import io
import re

import pytest
from rich.console import Console

from training.progress import Progress


def written(*, terminal: bool) -> tuple[Progress, io.StringIO]:
    file = io.StringIO()
    return Progress(Console(file=file, force_terminal=terminal, width=120)), file


def test_a_log_gets_one_line_a_step_with_its_last_note() -> None:
    progress, file = written(terminal=False)
    with progress.step("jigsaw", 2) as step:
        step.advance("loss 2.0")
        step.advance("loss 1.0")
    assert re.fullmatch(r"jigsaw +\d+\.\d s  loss 1\.0 *\n", file.getvalue())


def test_a_log_of_a_long_step_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 5.0, 16.0, 16.0, 20.0, 40.0, 41.0])  # begun twice, then each look; 16.0 is noted
    progress, file = written(terminal=False)
    monkeypatch.setattr("training.progress.time.perf_counter", lambda: next(clock))
    with progress.step("jigsaw", 4) as step:
        for loss in ("4", "3", "2", "1"):  # the last unit is told of by the step's own line
            step.advance(f"loss {loss}")
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert lines == [["jigsaw", "2/4", "loss", "3"], ["jigsaw", "41.0", "s", "loss", "1"]]


def test_a_terminal_sees_the_bar_move() -> None:
    progress, file = written(terminal=True)
    with progress.step("reading images", 40, done=7) as step:
        step.advance(by=3)
        step.advance("screw 11")
        step.reach(12)
    assert "12/40" in file.getvalue()
    assert "screw 11" in file.getvalue()


def test_steps_may_follow_each_other_and_their_seconds_add_up() -> None:
    progress, _ = written(terminal=True)
    with progress.step("features", 1) as step:
        step.advance(f"{sum(range(300_000))}")  # milliseconds: the second time takes far less
    with progress.step("gaussian", 1):
        pass
    first = progress.seconds["features"]
    with progress.step("features", 1):
        pass
    assert progress.seconds["features"] > first > 0
    assert list(progress.seconds) == ["features", "gaussian"]


def test_what_is_said_is_not_taken_for_markup_of_numbers() -> None:
    progress, file = written(terminal=True)
    progress.say("flange: 12 good images")
    assert file.getvalue() == "flange: 12 good images\n"


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress.silent()
    progress.say("nothing")
    with progress.step("features", 3, done=1) as step:
        step.advance("note")
        step.reach(3)
    assert capsys.readouterr() == ("", "")
    assert progress.seconds["features"] >= 0


def test_an_error_passes_through_a_step() -> None:
    progress, file = written(terminal=True)
    with pytest.raises(KeyError), progress.step("features", 3):
        raise KeyError("x")
    assert "features" not in progress.seconds
    progress.say("after")
    assert file.getvalue().endswith("after\n")


def test_times_are_of_each_step_of_the_rest_and_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 103.0, 103.0, 110.0, 110.0, 110.0, 111.5, 120.0])  # each step looks at its beginning twice
    monkeypatch.setattr("training.progress.time.perf_counter", lambda: next(clock))
    progress = Progress.silent()
    for name in ("features", "jigsaw"):
        with progress.step(name, 1):
            pass
    assert progress.times() == {"features": 7.0, "jigsaw": 1.5, "other": 11.5, "total": 20.0}
