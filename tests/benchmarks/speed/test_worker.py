"""The command's side of the conversation, with a contestant that computes nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from speed.worker import Worker, WorkerFailed, resident_bytes

SCRIPT = Path(__file__).with_name("trivial_worker.py")
Start = Callable[..., Worker]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is watched in /proc")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running = []

    def begin(*, limit_mb: float = 1000, **given: Any) -> Worker:
        command = [sys.executable, str(SCRIPT)]
        worker = Worker(command, threads=3, folder=tmp_path / "w", limit_bytes=limit_mb * 1e6, **given)
        running.append(worker)
        return worker

    yield begin
    for worker in running:
        worker.close()


def test_answers_are_not_mixed_with_what_libraries_print(start: Start) -> None:
    worker = start()
    assert worker.ask("say", text="hello") == {"said": "hello", "threads": "3"}
    assert worker.ask("say", text="again")["said"] == "again"


def test_an_error_is_an_answer_after_which_it_goes_on(start: Start) -> None:
    worker = start()
    with pytest.raises(WorkerFailed, match="ValueError: the picture is odd"):
        worker.ask("fail")
    assert worker.ask("say", text="still here")["said"] == "still here"


def test_too_much_memory_is_the_end(start: Start) -> None:
    worker = start(limit_mb=100)
    with pytest.raises(WorkerFailed, match=r"killed at 0\.\d GB of memory, its limit"):
        worker.ask("hoard", megabytes=300)
    assert worker.highest > 100e6
    with pytest.raises(WorkerFailed, match="its limit"):
        worker.ask("say", text="hello")


def test_what_it_has_started_ends_with_it(start: Start) -> None:
    worker = start(patience=2.0)
    child = worker.ask("breed")["child"]
    begun = time.monotonic()
    with pytest.raises(WorkerFailed, match="without an answer"):
        worker.ask("hoard", megabytes=1)
    assert time.monotonic() - begun < 30  # the child, asleep for a minute, has the answers' pipe open too
    assert not resident_bytes(child)


def test_variables_are_in_its_environment(start: Start) -> None:
    assert start(variables={"MALLOC_ARENA_MAX": "1"}).ask("look", name="MALLOC_ARENA_MAX") == {"found": "1"}
    assert start().ask("look", name="MALLOC_ARENA_MAX") == {"found": None}


def test_an_end_of_its_own_is_told_with_its_last_words(start: Start) -> None:
    with pytest.raises(WorkerFailed, match="exit code 3: out of paper"):
        start().ask("leave", code=3)


def test_who_does_not_answer_is_given_up(start: Start) -> None:
    with pytest.raises(WorkerFailed, match="without an answer"):
        start(patience=0.2).ask("hoard", megabytes=1)


def test_a_turn_is_a_pass_that_does_not_count_and_some_that_do(start: Start) -> None:
    worker = start()
    assert worker.ask("time", passes=3, enough_ms=1e9, warm_ms=20.0)["runs"] > 4  # short ones are warmed up longer
    answer = worker.ask("time", passes=3, enough_ms=1e9, warm_ms=0.0)
    assert (answer["runs"], len(answer["milliseconds"])) == (4, 3)
    assert worker.ask("time", passes=3, enough_ms=0.0, warm_ms=0.0)["runs"] == 2  # long ones are not repeated
