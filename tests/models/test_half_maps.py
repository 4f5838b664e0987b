"""What float16 does to maps: scores stay float32's and their maps' maxima, faults stay faults."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.calibration import Calibration
from models.detections import Detections
from models.errors import ScoreError
from models.half_maps import half_maps, whole
from models.preprocess import PreprocessConfig
from models.verdict import Judgement, judge


def transferred(maps: Tensor) -> Detections:
    scores, halved = half_maps(maps)
    return whole(scores.numpy(), halved.numpy())


def judged(maps: Tensor, threshold: float) -> Judgement:
    found = transferred(maps)
    return judge(
        float(found.scores[0]),
        found.maps[0],
        threshold=threshold,
        calibration=Calibration(torch.linspace(0, 1, 9)),
        preprocess=PreprocessConfig(),
        size=(64, 64),
    )


def test_scores_are_float32s_and_their_maps_maxima() -> None:
    maps = torch.rand(50, 9, 9) * 30
    found = transferred(maps)
    assert (found.scores.dtype, found.maps.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(found.scores, maps.amax(dim=(1, 2)).numpy())
    np.testing.assert_array_equal(found.scores, found.maps.max(axis=(1, 2)))
    assert half_maps(maps)[1].dtype == torch.float16


@pytest.mark.parametrize("value", [30.007, 30.0009, 30.0011, 30.001, 29.9999, 1e6, 65_520.0, -1e6])
def test_a_verdict_is_float32s(value: float) -> None:
    maps = torch.full((1, 8, 8), min(value, 1.0))
    maps[0, 3, 4] = value
    for threshold in (30.001, 65_504.0, 65_600.0, float(np.float32(value))):
        verdict = judged(maps, threshold)
        assert verdict.verdict == ("fail" if float(np.float32(value)) > threshold else "pass")
        assert bool(verdict.regions) == (verdict.verdict == "fail")


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("cells", [slice(2, 3), slice(None)])
def test_a_fault_has_no_verdict(fault: float, cells: slice) -> None:
    maps = torch.ones(1, 8, 8)
    maps[0, 2, cells] = fault
    maps[0] = fault if cells == slice(None) else maps[0]
    with pytest.raises(ScoreError, match=r"The score is (nan|-?inf)|not finite"):
        judged(maps, 30.0)


def test_it_moves_a_value_by_a_2048th_at_most() -> None:
    maps = torch.logspace(-4, 4, 10_000).view(1, 100, 100)
    _, halved = half_maps(maps)
    assert ((halved.float() - maps).abs() <= maps / 2048).all()


def test_order_stays() -> None:
    maps = (torch.rand(20_000) * 8).sort().values.view(1, -1, 1)
    assert (np.diff(transferred(maps).maps.flatten()) >= 0).all()


@pytest.mark.parametrize("value", [65_519.0, 65_520.0, 1e30, torch.finfo(torch.float32).max])
def test_what_is_too_large_stays_finite_and_the_largest(value: float) -> None:
    scores, halved = half_maps(torch.tensor([[[1.0, value]], [[-value, 0.0]]]))
    assert scores.tolist() == [np.float32(value), 0.0]
    assert halved.max() == 65_504
    assert halved.isfinite().all()


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), -float("inf")])
def test_a_fault_stays_one(fault: float) -> None:
    maps = torch.ones(2, 3, 3)
    maps[1, 2, 2] = fault
    scores, halved = half_maps(maps)
    assert not halved[1].isfinite().all(), "the verdict refuses such a map"
    assert halved[0].isfinite().all()
    assert scores[0] == 1
