import threading
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from training import feed as feeding
from training.feed import WHOLE, Feed, Share


class Numbers:
    """Ten examples: an epoch and an index. `made` is what was prepared."""

    size = 10

    def __init__(self) -> None:
        self.made: list[tuple[int, list[int]]] = []
        self.threads: set[str] = set()
        self.second_begun = threading.Event()

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
        self.made.append((epoch, indices))
        self.threads.add(threading.current_thread().name)
        if epoch == 1:
            self.second_begun.set()
        return torch.full((len(indices),), epoch), torch.tensor(indices)


def seen(source: Numbers, *, epochs: range, share: Share = WHOLE, seed: int = 0) -> list[list[list[int]]]:
    """The indices of each batch of each epoch, and that none is of another epoch."""
    with Feed(source, batch_size=4, seed=seed, epochs=epochs, share=share) as feed:
        found = []
        for number in epochs:
            batches = list(feed.epoch(number))
            assert all((epoch == number).all() for epoch, _ in batches)
            found.append([indices.tolist() for _, indices in batches])
    return found


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Torch with six threads, and as many cores."""
    monkeypatch.setattr(feeding, "usable_cores", lambda: 6)
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield 6
    torch.set_num_threads(before)


def test_every_epoch_is_each_example_once_in_an_order_of_its_own() -> None:
    first, second = seen(Numbers(), epochs=range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    for epoch in (first, second):
        assert sorted(chain.from_iterable(epoch)) == list(range(10))
    assert first != second


def test_the_order_depends_on_seed_and_epoch_alone(threads: int) -> None:
    many = seen(Numbers(), epochs=range(4))
    torch.set_num_threads(1)
    assert seen(Numbers(), epochs=range(4)) == many
    assert seen(Numbers(), epochs=range(2, 4)) == many[2:]
    assert seen(Numbers(), epochs=range(4), seed=1) != many


def test_several_threads_prepare_and_torch_keeps_its_own(threads: int) -> None:
    source = Numbers()
    seen(source, epochs=range(30))
    assert len(source.threads) > 1
    assert all(name.startswith("prepare") for name in source.threads)
    assert torch.get_num_threads() == threads


def test_the_next_epoch_is_begun_before_this_one_ends() -> None:
    source = Numbers()
    with Feed(source, batch_size=4, seed=0, epochs=range(2)) as feed:
        batches = feed.epoch(0)
        next(batches)
        next(batches)
        assert source.second_begun.wait(30)


def test_nothing_is_prepared_beyond_the_last_epoch_nor_far_ahead() -> None:
    source = Numbers()
    seen(source, epochs=range(3))
    assert len(source.made) == 9
    source = Numbers()
    with Feed(source, batch_size=1, seed=0, epochs=range(1000)) as feed:
        next(feed.epoch(0))
    assert len(source.made) < 4 + torch.get_num_threads()


@pytest.mark.parametrize("mebibytes", [400, 600])
def test_of_large_batches_no_more_than_two_lie_ahead(threads: int, mebibytes: int) -> None:
    class Large(Numbers):
        def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
            _, order = super().prepare(indices, epoch=epoch)
            return torch.zeros(1, dtype=torch.uint8).expand(mebibytes, 2**20), order  # takes no memory

    source = Large()
    with Feed(source, batch_size=1, seed=0, epochs=range(20)) as feed:
        taken = 0
        for number in range(20):
            for _ in feed.epoch(number):
                taken += 1
                assert len(source.made) <= taken + 2
    assert taken == len(source.made) == 200


def test_of_small_ones_there_is_work_for_every_thread(threads: int) -> None:
    meeting = threading.Barrier(3, timeout=30)  # broken, if they are not all there at once

    class Met(Numbers):
        def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
            if epoch:  # the first tells how large they are
                meeting.wait()
            return super().prepare(indices, epoch=epoch)

    assert len(seen(Met(), epochs=range(5))) == 5


def test_cores_are_divided_among_processes_once(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(feeding, "usable_cores", lambda: 8)
    torch.set_num_threads(4)  # a spawned process is given its half by Lightning
    meeting = threading.Barrier(2, timeout=30)

    class Met(Numbers):
        def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
            meeting.wait()
            return super().prepare(indices, epoch=epoch)

    assert len(seen(Met(), epochs=range(2), share=Share(0, 2))) == 2


def test_processes_share_each_batch_evenly() -> None:
    whole = seen(Numbers(), epochs=range(1))[0]
    shares = [seen(Numbers(), epochs=range(1), share=Share(rank, 3))[0] for rank in range(3)]
    for share in shares:
        assert [len(batch) for batch in share] == [1, 1]  # of 4, 4 and 2 examples
    together = [sorted(np.concatenate(batches).tolist()) for batches in zip(*shares, strict=True)]
    assert together == [sorted(batch[:3]) for batch in whole[:2]]


def test_an_example_that_cannot_be_made_is_an_error_where_it_is_asked_for() -> None:
    class Broken(Numbers):
        def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
            if epoch == 1:
                raise OSError("a texture is gone")
            return super().prepare(indices, epoch=epoch)

    with Feed(Broken(), batch_size=4, seed=0, epochs=range(2)) as feed:
        assert len(list(feed.epoch(0))) == 3
        with pytest.raises(OSError, match="a texture is gone"):
            next(feed.epoch(1))
