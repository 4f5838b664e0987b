"""Files of a dense Gaussian whose hash and manifest are right and whose numbers cannot have been fitted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.artifact import load, read_manifest

Forge = Callable[..., Path]
Refused = Callable[[Path], str]


@pytest.fixture(scope="module")
def tensors(dense_path: Path) -> dict[str, Tensor]:
    """What `forge` changes: those of an artifact with a dense Gaussian."""
    return dict(load_file(dense_path))


@pytest.fixture(scope="module")
def document(dense_path: Path) -> dict[str, Any]:
    """Its manifest."""
    return dict(read_manifest(dense_path).model_dump(mode="json"))


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
