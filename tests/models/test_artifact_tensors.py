"""Files whose hash and manifest are right and whose tensors are not."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.artifact import load
from models.calibration import Calibration

Forge = Callable[..., Path]
Refused = Callable[[Path], str]


def test_missing_and_extra_tensors_are_named(forge: Forge, refused: Refused, tensors: dict[str, Tensor]) -> None:
    without = {name: tensor for name, tensor in tensors.items() if name != "scorer.mean"}
    assert "missing or left over: scorer.mean" in refused(forge(without))
    assert "missing or left over: backdoor" in refused(forge({**tensors, "backdoor": torch.ones(1)}))
    without_scores = {name: tensor for name, tensor in tensors.items() if name != "calibration.scores"}
    assert "missing or left over: calibration.scores" in refused(forge(without_scores))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("scorer.mean", torch.zeros(16, 256), "scorer.mean is F32 (16, 256); its manifest asks for F32 (256, 16)"),
        ("scorer.mean", torch.zeros(256, 16).double(), "scorer.mean is F64 (256, 16)"),
        ("scorer.mean", torch.zeros(256, 16).half(), "scorer.mean is F16 (256, 16)"),
        ("scorer.mean", torch.zeros(256, 16).int(), "scorer.mean is I32 (256, 16)"),
        ("scorer.mean", torch.zeros(0), "scorer.mean is F32 (0,)"),
        ("scorer.whitening", torch.zeros(256, 256), "asks for F32 (256, 136)"),
        ("scorer.indices", torch.arange(16.0), "scorer.indices is F32 (16,)"),
        ("smoothing.kernel", torch.ones(3), "smoothing.kernel is F32 (3,)"),
        ("backbone.conv1.weight", torch.ones(64, 3, 7), "backbone.conv1.weight is F32 (64, 3, 7)"),
        ("calibration.scores", torch.ones(23), "calibration.scores must hold one F32 score for each of 24"),
        ("calibration.scores", torch.ones(24, 1), "calibration.scores must hold one F32 score"),
        ("calibration.scores", torch.ones(24).double(), "calibration.scores must hold one F32 score"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and " " not in value else "",
)
def test_wrong_shapes_and_types_are_named(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], name: str, value: Tensor, fault: str
) -> None:
    assert fault in refused(forge({**tensors, name: value}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["scorer.mean", "backbone.conv1.weight", "calibration.scores", "smoothing.kernel"])
def test_values_that_are_not_finite_are_found(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], name: str, value: float
) -> None:
    broken = tensors[name].clone()
    broken.view(-1)[-1] = value
    assert f"tensor {name} holds values that are not finite" in refused(forge({**tensors, name: broken}))


EXTREME = 2**63 - 1


@pytest.mark.parametrize(
    "start",
    [[1, 0], [0, 0], [-1, 0], [500, 501], [EXTREME - 1, EXTREME], [-EXTREME - 1, 0], [0, EXTREME, -EXTREME - 1, -1]],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_channel_numbers_that_cannot_be_are_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], start: list[int], at_the_end: bool
) -> None:
    usual = list(range(20, 20 + 16 - len(start)))
    indices = torch.tensor(usual + start if at_the_end else start + usual)
    assert "scorer.indices must hold ascending channel numbers from 0 to 447" in refused(
        forge({**tensors, "scorer.indices": indices})
    )


def test_the_first_and_the_last_channel_are_fine(forge: Forge, tensors: dict[str, Tensor]) -> None:
    for indices in (torch.arange(16), torch.arange(432, 448), torch.tensor([0, *range(100, 114), 447])):
        detector = load(forge({**tensors, "scorer.indices": indices})).detector
        assert detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).score.isfinite().all()


@pytest.mark.parametrize("place", [0, 2, 5, 135])  # W[0,0], W[1,1], W[2,2], W[15,15]
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_whitening_that_is_none_is_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], place: int, value: float
) -> None:
    whitening = tensors["scorer.whitening"].clone()
    whitening[200, place] = value
    assert "diagonal that is not positive" in refused(forge({**tensors, "scorer.whitening": whitening}))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.001, -1.0])
def test_a_kernel_that_is_not_the_manifests_gaussian_is_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], factor: float
) -> None:
    """Zeros would pass everything."""
    kernel = tensors["smoothing.kernel"] * factor
    reason = refused(forge({**tensors, "smoothing.kernel": kernel}))
    assert "smoothing.kernel is not the Gaussian of the manifest, which smooths by 2.0 px" in reason


def test_a_kernel_may_differ_by_rounding(forge: Forge, tensors: dict[str, Tensor]) -> None:
    load(forge({**tensors, "smoothing.kernel": tensors["smoothing.kernel"] + 1e-7}))


def conformal(document: dict[str, Any], value: float, rate: float | None) -> str:
    """The manifest's text with another threshold."""
    threshold = {"rule": "conformal", "value": value, "false_reject_rate": rate}
    return json.dumps({**document, "threshold": threshold})


def test_a_conformal_threshold_is_the_one_of_the_scores(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], document: dict[str, Any]
) -> None:
    value = Calibration(tensors["calibration.scores"]).threshold(0.2)
    assert load(forge(manifest=conformal(document, value, 0.2))).manifest.threshold.value == value
    for other in (math.nextafter(value, math.inf), 1e30, -1.0):
        reason = refused(forge(manifest=conformal(document, other, 0.2)))
        assert reason == (
            f"its threshold is {other}; its calibration scores give {value} for a false-reject rate of 0.2."
        )
    assert "its calibration scores give" in refused(forge(manifest=conformal(document, value, 0.9)))


def test_a_rule_and_a_rate_that_contradict_each_other_are_refused(
    forge: Forge, refused: Refused, document: dict[str, Any]
) -> None:
    assert "rule conformal, and its false-reject rate is None" in refused(
        forge(manifest=conformal(document, 1.0, None))
    )
    threshold = {**document["threshold"], "false_reject_rate": 0.1}
    assert "rule train_max, and its false-reject rate is 0.1" in refused(
        forge(manifest=json.dumps({**document, "threshold": threshold}))
    )
