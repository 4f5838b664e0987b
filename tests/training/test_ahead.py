"""Work ahead of whoever takes its results: in order, bounded, and stopped by what goes wrong."""

import threading
from collections.abc import Iterator

import pytest
import torch

from training.ahead import read_ahead


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many torch has, and so this."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads: int) -> None:
    assert list(read_ahead(lambda n: n * n, range(200), batch=7)) == [n * n for n in range(200)]
    assert list(read_ahead(str, [])) == []


def test_each_thread_computes_alone_and_whoever_takes_results_as_before(threads: int) -> None:
    for within in read_ahead(lambda _: torch.get_num_threads(), range(20)):
        assert within == 1
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == threads


def test_threads_work_at_the_same_time(threads: int) -> None:
    meeting = threading.Barrier(threads, timeout=20)  # broken, if they are not all there at once
    list(read_ahead(lambda _: meeting.wait(), range(3 * threads)))


def test_no_more_is_begun_than_may_wait(threads: int) -> None:
    begun: list[int] = []
    results = read_ahead(lambda n: begun.append(n) or n, range(500), batch=4)
    for taken in range(50):
        assert next(results) == taken
        assert len(begun) <= taken + 4 + 2 * threads
    results.close()
    assert len(begun) < 100


def test_an_error_is_raised_in_its_place_and_ends_it(threads: int) -> None:
    begun: list[int] = []

    def work(n: int) -> int:
        begun.append(n)
        if n == 5:
            raise ValueError("the fifth")
        return n

    results = read_ahead(work, range(500))
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="the fifth"):
        next(results)
    assert len(begun) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
