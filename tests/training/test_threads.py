"""Torch computes with one thread in each of ours, and with as many as before everywhere else."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest
import torch

from training.threads import Threads


@pytest.fixture
def five() -> Iterator[None]:
    """Torch with five threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


def found_by_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.usefixtures("five")
def test_each_computes_alone_and_whoever_asked_as_before() -> None:
    with Threads(3, name="work") as pool:
        assert [pool.submit(torch.get_num_threads).result() for _ in range(9)] == [1] * 9
        assert torch.get_num_threads() == 5
    assert torch.get_num_threads() == found_by_a_new_thread() == 5


@pytest.mark.usefixtures("five")
def test_an_error_ends_them_and_what_was_not_begun() -> None:
    begun, go_on = Event(), Event()
    waiting: list[Future[None]] = []

    def wait() -> None:
        begun.set()
        go_on.wait(30)

    def broken_off() -> None:
        with Threads(1, name="work") as pool:
            pool.submit(wait)
            begun.wait(30)
            waiting.append(pool.submit(begun.clear))
            waiting[0].add_done_callback(lambda _: go_on.set())  # cancelled while the first still waits
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        broken_off()
    assert waiting[0].cancelled()
    assert begun.is_set()
    assert torch.get_num_threads() == found_by_a_new_thread() == 5
