import torch
from speed.machine import describe

from models.precision import pick_precision


def test_the_precision_is_the_one_that_a_detector_gets_here() -> None:
    told = describe(threads=1, device="cpu")["precision"]
    assert getattr(torch, told) is pick_precision("auto", torch.device("cpu"))
