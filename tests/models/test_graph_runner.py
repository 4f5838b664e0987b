"""Batches in and out, in order on a CPU: filled up, cut, begun side by side, and each answer where it belongs.

What only a GPU can show is in test_graph_runner_gpu.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.artifact import Artifact, load
from models.buckets import SIZES, buckets
from models.compact_gaussian import CompactGaussianConfig
from models.cuda_lane import give_back_memory
from models.detector import DetectorConfig, build_detector
from models.images import decode
from models.lane import Again, InOrder, Recording, Work
from models.preprocess import PreprocessConfig
from models.runner import Detections, GraphRunner, PlainRunner, runner_for

CPU = torch.device("cpu")
Pictures = Callable[[int], bytes]


@pytest.fixture(autouse=True)
def _nothing_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that died in another test has left its batch behind, as it may."""
    monkeypatch.setattr("models.staging._staged", {})


@pytest.fixture
def ready(artifact_path: Path) -> Artifact:
    return load(artifact_path).ready(CPU, precision="float32")


@pytest.fixture
def tiles(ready: Artifact, good: Pictures, bad: Pictures) -> list[Tensor]:
    return [ready.detector.preprocess.resize(decode(make(seed))) for seed in range(5) for make in (good, bad)]


@pytest.fixture
def run(ready: Artifact) -> list[int]:
    """How many pictures each forward pass had."""
    sizes: list[int] = []
    ready.detector.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def assert_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.maps, expected.maps)


def test_results_are_those_of_a_plain_run_in_half_precision(ready: Artifact, tiles: list[Tensor]) -> None:
    found, expected = GraphRunner(ready.detector, InOrder(CPU))(tiles), PlainRunner(ready.detector, CPU)(tiles)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3)
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.scores, found.maps.max(axis=(1, 2)))
    assert (found.scores.dtype, found.maps.dtype) == (np.float32, np.float32)


def test_batches_are_filled_up_or_cut(ready: Artifact, tiles: list[Tensor], run: list[int]) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    for count in (1, 3, 5, 8):
        assert len(runner(tiles[:count]).scores) == count
    many = (tiles * 8)[: 2 * SIZES[-1] + 3]
    found = runner(many)
    assert run == [1, 4, 8, 8, 32, 32, 4]
    assert found.maps.shape == (len(many), *ready.detector.smoothing.keep.shape)
    expected = PlainRunner(ready.detector, CPU)(many)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3)


def test_what_was_there_before_changes_nothing(ready: Artifact, tiles: list[Tensor]) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    expected = runner(tiles[:5])
    runner([tile.flip(0) for tile in tiles[:8]])
    assert_same(runner(tiles[:5]), expected)


def test_large_pictures_come_in_smaller_batches() -> None:
    def most(side: int) -> int:
        config = DetectorConfig(
            arch="resnet18",
            preprocess=PreprocessConfig(image_size=side),
            fusion="none",
            scorer=CompactGaussianConfig(dimensions=4, rank=2, shrinkage=0.1, pooling=1),
            smoothing=0,
        )
        with torch.device("meta"):
            return buckets(build_detector(config).at_once)[-1]

    assert (most(224), most(448), most(1024), most(2048)) == (32, 16, 2, 1)


def test_two_batches_may_be_begun_and_no_third(ready: Artifact, tiles: list[Tensor]) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    singly = [runner([tile]) for tile in tiles[:3]]
    first, second = runner.begin(tiles[:1]), runner.begin(tiles[1:2])
    with pytest.raises(RuntimeError, match="2 batches are under way"):
        runner.begin(tiles[2:3])
    assert_same(first(), singly[0])
    third = runner.begin(tiles[2:3])
    assert_same(third(), singly[2])
    assert_same(second(), singly[1])


def test_a_cut_batch_gets_by_with_what_another_leaves(ready: Artifact, tiles: list[Tensor]) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    many = tiles * 8
    expected, alone = runner(many), runner(tiles[:1])
    first, second = runner.begin(many), runner.begin(tiles[:1])
    assert_same(first(), expected)
    assert_same(second(), alone)


def test_two_detectors_of_one_size_take_turns(
    ready: Artifact, tiles: list[Tensor], make: Callable[..., Path], tmp_path: Path
) -> None:
    other = load(make(tmp_path, seed=7)).ready(CPU, precision="float32")
    lane = InOrder(CPU)
    one, two = GraphRunner(ready.detector, lane), GraphRunner(other.detector, lane)
    expected = one(tiles[:3]), two(tiles[:3])
    assert not np.array_equal(expected[0].scores, expected[1].scores)
    first, second = one.begin(tiles[:3]), two.begin(tiles[:3])
    assert_same(second(), expected[1])
    assert_same(first(), expected[0])


def test_a_failure_leaves_room_for_the_next(ready: Artifact, tiles: list[Tensor]) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    expected = runner(tiles[:2])

    def full(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("as a device would")

    hook = ready.detector.register_forward_pre_hook(full)
    for _ in range(5):
        with pytest.raises(torch.OutOfMemoryError):
            runner(tiles[:4])
        with pytest.raises(torch.OutOfMemoryError):
            runner(tiles * 8)
    assert_same(runner(tiles[:2]), expected)
    hook.remove()
    assert len(runner(tiles).scores) == len(tiles)


class WithoutRecording(InOrder):
    """A device that cannot repeat anything."""

    def record(self, work: Work) -> Recording | None:  # noqa: ARG002  the protocol's
        return None


def test_without_recordings_it_goes_on_step_by_step(ready: Artifact, tiles: list[Tensor], run: list[int]) -> None:
    runner = GraphRunner(ready.detector, WithoutRecording(CPU))
    assert_same(runner(tiles[:4]), runner(tiles[:4]))
    assert run == [4, 4]


class Noting(InOrder):
    """Notes what is recorded."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.recorded = 0

    def record(self, work: Work) -> Recording | None:
        self.recorded += 1
        self.last = Again(work)
        return self.last


def test_a_size_is_recorded_once_when_it_comes_again(ready: Artifact, tiles: list[Tensor]) -> None:
    lane = Noting(CPU)
    runner = GraphRunner(ready.detector, lane)
    counts: Sequence[tuple[int, int]] = [(1, 0), (3, 0), (4, 1), (3, 1), (1, 2), (1, 2), (2, 2)]
    for count, recorded in counts:
        runner(tiles[:count])
        assert lane.recorded == recorded


def test_what_the_lane_has_given_up_is_recorded_again(ready: Artifact, tiles: list[Tensor]) -> None:
    lane = Noting(CPU)
    runner = GraphRunner(ready.detector, lane)
    expected = [runner(tiles[:2]) for _ in range(2)][-1]
    lane.last.alive = False
    for _ in range(2):
        assert_same(runner(tiles[:2]), expected)
        assert lane.recorded == 2


def test_on_a_cpu_batches_run_whole(ready: Artifact, tiles: list[Tensor], run: list[int]) -> None:
    runner = runner_for(ready.detector, CPU)
    assert runner.ahead == 0
    waiting = runner.begin(tiles)
    assert run == []
    assert_same(waiting(), runner(tiles))
    assert run == [10, 10]
    give_back_memory(CPU)  # there is nothing to give back


@pytest.mark.parametrize("spoil", [lambda tile: tile[:, :-1], lambda tile: tile[:1], lambda tile: tile.float()])
def test_a_tile_of_another_kind_is_refused(
    ready: Artifact, tiles: list[Tensor], spoil: Callable[[Tensor], Tensor]
) -> None:
    runner = GraphRunner(ready.detector, InOrder(CPU))
    expected = runner(tiles[:3])
    for wrong in ([spoil(tiles[4])], [tiles[3], spoil(tiles[4])]):
        with pytest.raises(ValueError, match="a tile must be"):
            runner(wrong)
    assert_same(runner(tiles[:3]), expected)


def test_nothing_is_recorded_while_another_batch_is_under_way(ready: Artifact, tiles: list[Tensor]) -> None:
    lane = Noting(CPU)
    runner = GraphRunner(ready.detector, lane)
    runner(tiles[:1])
    first = runner.begin(tiles[:2])
    second = runner.begin(tiles[:1])
    assert lane.recorded == 0
    assert runner.ahead == 0, "the next is to come alone"
    first(), second()
    runner(tiles[:1])
    assert (lane.recorded, runner.ahead, lane.under_way) == (1, 1, 0)


class Refusing(InOrder):
    """Cannot record, and notes what it was asked for."""

    asked = 0

    def record(self, work: Work) -> Recording | None:  # noqa: ARG002  the protocol's
        self.asked += 1
        return None


def test_what_cannot_be_recorded_is_not_tried_again(ready: Artifact, tiles: list[Tensor]) -> None:
    lane = Refusing(CPU)
    runner = GraphRunner(ready.detector, lane)
    for _ in range(4):
        runner(tiles[:2])
    assert lane.asked == 1
