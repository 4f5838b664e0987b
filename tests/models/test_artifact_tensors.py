"""Files whose hash and manifest are right and whose tensors are not: what is common to all scorers, and the compact."""

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
    without = {name: tensor for name, tensor in tensors.items() if name != "scorer.mean1"}
    assert "missing or left over: scorer.mean1" in refused(forge(without))
    assert "missing or left over: backdoor" in refused(forge({**tensors, "backdoor": torch.ones(1)}))
    without_scores = {name: tensor for name, tensor in tensors.items() if name != "calibration.scores"}
    assert "missing or left over: calibration.scores" in refused(forge(without_scores))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("scorer.mean1", torch.zeros(64, 256), "scorer.mean1 is F32 (64, 256); its manifest asks for F32 (64, 16, 16)"),
        ("scorer.mean1", torch.zeros(64, 16, 16).double(), "scorer.mean1 is F64 (64, 16, 16)"),
        ("scorer.mean1", torch.zeros(64, 16, 16).half(), "scorer.mean1 is F16 (64, 16, 16)"),
        ("scorer.mean1", torch.zeros(64, 16, 16).int(), "scorer.mean1 is I32 (64, 16, 16)"),
        ("scorer.mean1", torch.zeros(0), "scorer.mean1 is F32 (0,)"),
        ("scorer.whitening2", torch.zeros(128, 32), "asks for F32 (32, 128)"),
        ("scorer.directions", torch.zeros(256, 32, 4), "is F32 (256, 32, 4); its manifest asks for I8 (256, 32, 4)"),
        ("smoothing.kernel", torch.ones(3), "smoothing.kernel is F32 (3,)"),
        ("smoothing.keep", torch.ones(16, 16), "smoothing.keep is F32 (16, 16); its manifest asks for BOOL (16, 16)"),
        ("smoothing.keep", torch.ones(32, 32) > 0, "smoothing.keep is BOOL (32, 32)"),
        ("backbone.conv1.weight", torch.ones(64, 3, 7).half(), "backbone.conv1.weight is F16 (64, 3, 7)"),
        ("backbone.conv1.weight", torch.ones(64, 3, 7, 7), "its manifest asks for F16 (64, 3, 7, 7)"),
        ("backbone.bn1.weight", torch.ones(64).half(), "its manifest asks for F32 (64,)"),
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
@pytest.mark.parametrize(
    "name", ["scorer.mean1", "scorer.corrections", "backbone.conv1.weight", "calibration.scores", "smoothing.kernel"]
)
def test_values_that_are_not_finite_are_found(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], name: str, value: float
) -> None:
    broken = tensors[name].clone()
    broken.view(-1)[-1] = value
    assert f"tensor {name} holds values that are not finite" in refused(forge({**tensors, name: broken}))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("scorer.whitening1", "a tensor scorer.whitening holds nothing but zeros: it was never fitted"),
        ("scorer.corrections", "tensor scorer.corrections holds nothing but zeros: it was never fitted"),
        ("scorer.directions", "tensor scorer.directions holds nothing but zeros: it was never fitted"),
        ("smoothing.keep", "tensor smoothing.keep leaves out 256 positions, and its manifest says nothing is ignored"),
    ],
)
def test_zeros_that_nothing_was_fitted_to_are_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], name: str, fault: str
) -> None:
    assert fault in refused(forge({**tensors, name: torch.zeros_like(tensors[name])}))


def test_a_direction_that_explains_more_than_all_is_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor]
) -> None:
    """It would make distances of zero."""
    reason = refused(forge({**tensors, "scorer.corrections": 5 * tensors["scorer.corrections"]}))
    assert "none is longer than 1" in reason


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.001, -1.0])
def test_a_kernel_that_is_not_the_manifests_gaussian_is_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], factor: float
) -> None:
    """Zeros would pass everything."""
    kernel = tensors["smoothing.kernel"] * factor
    reason = refused(forge({**tensors, "smoothing.kernel": kernel}))
    assert "smoothing.kernel is not the Gaussian of the manifest, which smooths by 2.0 px" in reason


def test_a_mask_that_the_manifest_does_not_name_is_refused(
    forge: Forge, refused: Refused, tensors: dict[str, Tensor], document: dict[str, Any]
) -> None:
    """It would hide defects."""
    keep = tensors["smoothing.keep"].clone()
    keep[3:5, 2:4] = False
    reason = refused(forge({**tensors, "smoothing.keep": keep}))
    assert "smoothing.keep leaves out 4 positions, and its manifest says nothing is ignored" in reason
    named = json.dumps({**document, "ignored": "ab" * 32})
    assert "leaves out 0 positions, and its manifest says that something is ignored" in refused(forge(manifest=named))


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
