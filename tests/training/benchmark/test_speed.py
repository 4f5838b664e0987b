import numpy as np
import torch

from models.artifact import Artifact
from training.benchmark.speed import device_peak_bytes, median_milliseconds, milliseconds, peak_bytes


def test_each_picture_is_inspected_once_after_a_first_try() -> None:
    seen: list[int] = []
    pictures = [np.full((2, 2, 3), value, np.uint8) for value in (1, 2, 3)]
    assert median_milliseconds(lambda picture: seen.append(int(picture[0, 0, 0])), pictures) >= 0
    assert seen == [1, 1, 2, 3]


def test_a_detector_takes_time(artifact: Artifact) -> None:
    assert 0.1 < milliseconds(artifact, [np.zeros((96, 128, 3), np.uint8)] * 3) < 10_000


def test_the_peak_of_memory_grows_and_stays() -> None:
    before = peak_bytes()
    ballast = torch.ones(80_000_000)  # 320 MB
    assert peak_bytes() > 200_000_000
    del ballast
    assert peak_bytes() >= before
    assert (device_peak_bytes() > 0) <= torch.cuda.is_available()
