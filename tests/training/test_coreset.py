"""The greedy coreset against the plain algorithm, step for step."""

import pytest
import torch
from torch import Tensor

from training import coreset
from training.coreset import k_center


def points(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def plain(every: Tensor, first: int, count: int) -> list[int]:
    """Always the point farthest from all that were taken, in float64."""
    taken, nearest = [first], torch.full((len(every),), torch.inf, dtype=torch.float64)
    while len(taken) < count:
        nearest = torch.minimum(nearest, (every.double() - every[taken[-1]].double()).norm(dim=1))
        taken.append(int(nearest.argmax()))
    return taken


@pytest.mark.parametrize(("active", "block"), [(8192, 2**22), (16, 2**22), (1, 64), (50, 64)])
def test_coreset_is_the_plain_algorithms(monkeypatch: pytest.MonkeyPatch, active: int, block: int) -> None:
    monkeypatch.setattr(coreset, "_ACTIVE", active)
    monkeypatch.setattr(coreset, "_BLOCK", block)
    every = points(400, 6)
    taken = k_center(every, 120, seed=3)
    assert taken.dtype == torch.int64
    assert taken.tolist() == plain(every, int(taken[0]), 120)


def test_every_cluster_is_represented() -> None:
    centres = 100 * points(20, 4)
    every = (centres[:, None] + points(1000, 4).view(20, 50, 4)).flatten(0, 1)
    assert sorted((k_center(every, 20, seed=0) // 50).tolist()) == list(range(20))


def test_the_seed_draws_the_first_and_nothing_else_is_random() -> None:
    every = points(300, 5)
    assert torch.equal(k_center(every, 30, seed=7), k_center(every, 30, seed=7))
    assert len({int(k_center(every, 1, seed=seed)) for seed in range(20)}) > 10


def test_no_point_is_taken_twice_even_if_all_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "_ACTIVE", 4)
    assert sorted(k_center(torch.ones(30, 3), 30, seed=0).tolist()) == list(range(30))


def test_progress_adds_up() -> None:
    steps: list[int] = []
    k_center(points(200, 3), 50, seed=0, advance=steps.append)
    assert sum(steps) == 50


@pytest.mark.parametrize("count", [0, 11])
def test_more_points_than_there_are_cannot_be_taken(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} points cannot be taken out of 10"):
        k_center(points(10, 2), count, seed=0)
