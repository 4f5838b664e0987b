"""What float16 does to maps: the score stays the maximum, faults stay faults, the rest moves by a 2,048th at most."""

import pytest
import torch

from models.half_maps import half_maps


def test_scores_are_the_maxima_of_what_is_transferred() -> None:
    maps = torch.rand(50, 9, 9) * 30
    scores, halved = half_maps(maps)
    assert halved.dtype == torch.float16
    assert scores.dtype == torch.float32
    assert torch.equal(scores, halved.float().amax(dim=(1, 2)))


def test_it_moves_a_value_by_a_2048th_at_most() -> None:
    maps = torch.logspace(-4, 4, 10_000).view(1, 100, 100)
    _, halved = half_maps(maps)
    assert ((halved.float() - maps).abs() <= maps / 2048).all()


def test_order_stays() -> None:
    maps = (torch.rand(20_000) * 8).sort().values.view(-1, 1, 1)
    scores, _ = half_maps(maps)
    assert (scores.diff() >= 0).all()


@pytest.mark.parametrize("value", [65_519.0, 65_520.0, 1e30, torch.finfo(torch.float32).max])
def test_what_is_too_large_stays_finite_and_the_largest(value: float) -> None:
    scores, halved = half_maps(torch.tensor([[[1.0, value]], [[-value, 0.0]]]))
    assert scores.tolist() == [65_504.0, 0.0]
    assert halved.isfinite().all()


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), -float("inf")])
def test_a_fault_stays_one(fault: float) -> None:
    maps = torch.ones(2, 3, 3)
    maps[1, 2, 2] = fault
    scores, halved = half_maps(maps)
    assert not halved[1].isfinite().all(), "the verdict refuses such a map"
    assert halved[0].isfinite().all()
    assert scores[0] == 1
