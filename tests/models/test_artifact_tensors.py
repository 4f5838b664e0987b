"""Files whose hash and manifest are right and whose tensors are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.artifact import load

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
