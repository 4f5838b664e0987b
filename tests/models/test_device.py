"""Which device is picked."""

import pytest
import torch

from models.device import pick_device
from models.errors import DeviceError


def test_the_cpu_is_always_to_be_had() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused_and_auto_does_without() -> None:
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="no CUDA device"):
        pick_device("cuda")


@pytest.mark.gpu
def test_auto_takes_cuda() -> None:
    assert pick_device("auto") == torch.device("cuda")
