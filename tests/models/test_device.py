"""Which device is picked."""

import pytest
import torch

from models.device import full_precision, pick_device
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


@pytest.mark.parametrize("before", [True, False])
def test_full_precision_is_asked_for_and_the_setting_comes_back(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        with full_precision():
            pass
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 is before
