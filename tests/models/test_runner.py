"""What runs a detector on a batch: from pictures in memory to scores and maps there."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.artifact import Artifact
from models.runner import Detections, runner_for

CPU = torch.device("cpu")


def tiles(count: int) -> list[Tensor]:
    """As `take` gives them: (3, s, s) of which each pixel's colours lie together."""
    random = torch.Generator().manual_seed(4)
    return [
        torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=random).permute(2, 0, 1) for _ in range(count)
    ]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def ready(artifact: Artifact, request: pytest.FixtureRequest) -> Artifact:
    return artifact.ready(CPU, precision=request.param)


def test_it_gives_what_the_detector_gives(ready: Artifact) -> None:
    pictures = tiles(3)
    with torch.inference_mode():
        wanted = ready.detector(torch.stack(pictures))
    found = runner_for(ready.detector, CPU)(pictures)
    assert isinstance(found, Detections)
    assert found.scores.shape == (3,)
    assert found.maps.shape == (3, 16, 16)
    assert found.scores.dtype == found.maps.dtype == np.float32
    np.testing.assert_allclose(found.scores, wanted.score.numpy(), rtol=1e-3)
    np.testing.assert_allclose(found.maps, wanted.map.numpy(), rtol=1e-3)
    assert np.array_equal(found.scores, found.maps.max(axis=(1, 2)))


def test_pictures_come_back_in_their_order_however_they_lie(ready: Artifact) -> None:
    run, pictures = runner_for(ready.detector, CPU), tiles(4)
    scores = run(pictures).scores
    assert len(np.unique(scores)) == 4
    np.testing.assert_allclose(run(pictures[::-1]).scores[::-1], scores, rtol=1e-3)
    np.testing.assert_allclose(run([tile.contiguous() for tile in pictures]).scores, scores, rtol=1e-3)


def test_pictures_and_earlier_answers_stay_as_they_are(ready: Artifact) -> None:
    run, pictures = runner_for(ready.detector, CPU), tiles(2)
    before = [tile.clone() for tile in pictures]
    first = run(pictures)
    kept = first.maps.copy()
    run(tiles(4)[2:])
    assert np.array_equal(first.maps, kept)
    assert all(torch.equal(tile, was) for tile, was in zip(pictures, before, strict=True))


def test_an_artifact_that_is_ready_has_one(artifact: Artifact, ready: Artifact) -> None:
    assert ready.runner is not None
    pictures = tiles(2)
    wanted = runner_for(ready.detector, CPU)(pictures)
    np.testing.assert_allclose(ready.runner(pictures).scores, wanted.scores, rtol=1e-3)
