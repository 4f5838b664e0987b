"""Recorded runs on CUDA: bit for bit what is computed step by step, whoever else uses the GPU meanwhile."""

import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.artifact import Artifact, load
from models.buckets import SIZES
from models.cuda_lane import give_back_memory, lane_of
from models.device import full_precision
from models.half_maps import half_maps, whole
from models.images import decode
from models.precision import Precision
from models.runner import Detections, GraphRunner

pytestmark = pytest.mark.gpu

Pictures = Callable[[int], bytes]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


@pytest.fixture
def tiles(artifact: Artifact, good: Pictures, bad: Pictures) -> list[Tensor]:
    """As many as the largest batch has, no two alike."""
    pictures = (make(seed) for seed in range(SIZES[-1] // 2) for make in (good, bad))
    return [artifact.detector.preprocess.resize(decode(picture)) for picture in pictures]


@pytest.fixture
def ready(artifact_path: Path) -> Artifact:
    return load(artifact_path).ready("cuda")


def assert_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.maps, expected.maps)


@torch.inference_mode()
def step_by_step(artifact: Artifact, tiles: list[Tensor]) -> Detections:
    """What the detector gives on the GPU without a runner."""
    batch = torch.stack([tile.permute(1, 2, 0) for tile in tiles]).to(artifact.device).permute(0, 3, 1, 2)
    scores, maps = half_maps(artifact.detector(batch).map)
    return whole(scores.cpu().numpy(), maps.cpu().numpy())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_size_gives_what_is_computed_step_by_step(
    artifact_path: Path, tiles: list[Tensor], precision: Precision, caplog: pytest.LogCaptureFixture
) -> None:
    ready = load(artifact_path).ready("cuda", precision=precision)
    assert isinstance(ready.runner, GraphRunner)
    with caplog.at_level(logging.WARNING):
        for size in SIZES:
            expected = step_by_step(ready, tiles[:size])
            for _ in range(3):  # step by step, recorded, repeated
                assert_same(ready.runner(tiles[:size]), expected)
            others = tiles[::-1][:size]
            assert_same(ready.runner(others), step_by_step(ready, others))
    assert not caplog.records, "it was not recorded"


@pytest.mark.parametrize("which", ["artifact", "dense_artifact"])
def test_it_agrees_with_the_cpu(which: str, tiles: list[Tensor], request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which).path
    on_gpu = load(path).ready("cuda", precision="float32")
    expected = load(path).ready("cpu", precision="float32").runner(tiles)
    for _ in range(3):
        found = on_gpu.runner(tiles)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-3)
        np.testing.assert_array_equal(found.scores, found.maps.max(axis=(1, 2)))


def test_what_fills_up_a_batch_changes_nothing(ready: Artifact, tiles: list[Tensor]) -> None:
    expected = ready.runner(tiles[:5])
    for others in (tiles[8:16], tiles[16:24], tiles[24:]):
        ready.runner(others)
        assert_same(ready.runner(tiles[:5]), expected)


def test_batches_begun_side_by_side_and_cut_ones(ready: Artifact, tiles: list[Tensor]) -> None:
    for _ in range(3):
        many = ready.runner(tiles * 3)
    expected = [ready.runner(tiles), ready.runner(tiles[::-1])]
    assert_same(many, Detections(*(np.concatenate([part] * 3) for part in expected[0])))
    for _ in range(20):
        first, second = ready.runner.begin(tiles), ready.runner.begin(tiles[::-1])
        assert_same(first(), expected[0])
        assert_same(second(), expected[1])


def test_two_artifacts_take_turns_in_one_memory(
    ready: Artifact, tiles: list[Tensor], make: Callable[..., Path], tmp_path: Path
) -> None:
    other = load(make(tmp_path, seed=7)).ready("cuda")
    expected = {id(each): [step_by_step(each, tiles[:size]) for size in SIZES] for each in (ready, other)}
    for _ in range(4):
        for place, size in enumerate(SIZES):
            first, second = ready.runner.begin(tiles[:size]), other.runner.begin(tiles[:size])
            assert_same(first(), expected[id(ready)][place])
            assert_same(second(), expected[id(other)][place])
    del other, first, second
    gc.collect()
    give_back_memory(ready.device)
    assert_same(ready.runner(tiles), expected[id(ready)][-1])


def test_others_may_load_and_give_memory_back_meanwhile(
    ready: Artifact, tiles: list[Tensor], artifact_path: Path
) -> None:
    expected = [step_by_step(ready, tiles[:size]) for size in SIZES]
    over, failures, loaded = threading.Event(), [], []

    def load_again_and_again() -> None:
        try:
            while not over.is_set():
                loaded.append(load(artifact_path).ready("cuda").version)
                give_back_memory(ready.device)
        except Exception as error:
            failures.append(error)

    other = threading.Thread(target=load_again_and_again)
    other.start()
    try:
        while len(loaded) < 10 and not failures:
            fresh = load(artifact_path).ready("cuda")  # which records every size anew
            for place, size in enumerate(SIZES):
                for _ in range(3):
                    assert_same(fresh.runner(tiles[:size]), expected[place])
    finally:
        over.set()
        other.join()
    assert failures == []


def test_an_artifact_that_goes_leaves_its_memory(artifact_path: Path, tiles: list[Tensor]) -> None:
    def use_one() -> None:
        ready = load(artifact_path).ready("cuda")
        for _ in range(3):
            ready.runner(tiles)

    use_one()  # what torch and its libraries keep for themselves
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        use_one()
        gc.collect()
        assert torch.cuda.memory_allocated() <= before


def test_artifacts_that_come_and_go_harm_no_other(ready: Artifact, tiles: list[Tensor], artifact_path: Path) -> None:
    expected = [step_by_step(ready, tiles[:size]) for size in SIZES]
    for _ in range(12):  # more graphs than are kept without use
        passing = load(artifact_path).ready("cuda")
        for place, size in enumerate(SIZES):
            for _ in range(2):
                assert_same(passing.runner(tiles[:size]), expected[place])
        del passing
        give_back_memory(ready.device)
        for place, size in enumerate(SIZES):
            assert_same(ready.runner(tiles[:size]), expected[place])


def test_where_memory_is_short_the_next_batch_ends_all_graphs(ready: Artifact, tiles: list[Tensor]) -> None:
    expected = step_by_step(ready, tiles)
    for _ in range(3):
        ready.runner(tiles)
    reserved = torch.cuda.memory_reserved()
    give_back_memory(ready.device)
    with lane_of(ready.device).computing():
        assert torch.cuda.memory_reserved() < reserved
    for _ in range(3):
        assert_same(ready.runner(tiles), expected)


def test_a_detector_that_fails_while_it_is_recorded_harms_no_other(
    ready: Artifact, tiles: list[Tensor], artifact_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = load(artifact_path).ready("cuda")

    def fail(*_: object) -> None:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not while it is recorded")

    odd.detector.register_forward_pre_hook(fail)
    expected = step_by_step(ready, tiles[:2])
    for _ in range(4):
        assert_same(odd.runner(tiles[:2]), expected)
    assert [record.message.startswith("a run on") for record in caplog.records] == [True]
    for _ in range(3):
        assert_same(ready.runner(tiles[:2]), expected)
    assert len(caplog.records) == 1, "the other was recorded"


@contextmanager
def no_memory_left(device: torch.device) -> Iterator[None]:
    """In this block torch gets no more memory from the GPU, and has nothing left of what it got."""
    give_back_memory(device)
    taken: list[Tensor] = []
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    try:
        for size in (2**22, 2**20 + 1, 2**14):  # torch keeps large and small tensors apart
            with lane_of(device).computing(), suppress(torch.OutOfMemoryError):  # and each stream's
                while True:
                    taken.append(torch.empty(size, dtype=torch.uint8, device=device))
        yield
    finally:
        taken.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("before", [0, 1], ids=["computed step by step", "recorded"])
def test_too_little_memory_is_said_and_forgotten(ready: Artifact, tiles: list[Tensor], before: int) -> None:
    expected = step_by_step(ready, tiles)
    ready.runner(tiles[:1])
    for _ in range(before):
        ready.runner(tiles)
    with no_memory_left(ready.device), pytest.raises(torch.OutOfMemoryError):
        ready.runner(tiles)
    for _ in range(3):
        assert_same(ready.runner(tiles), expected)


def test_torchs_setting_is_left_as_it_was(ready: Artifact, tiles: list[Tensor]) -> None:
    before = torch.backends.cudnn.allow_tf32
    for _ in range(3):
        ready.runner(tiles[:2])
    assert torch.backends.cudnn.allow_tf32 == before
    with full_precision():
        assert_same(ready.runner(tiles[:2]), step_by_step(ready, tiles[:2]))


UNRECORDABLE = """
import sys, torch
from pathlib import Path
from models.artifact import load
from models.cuda_lane import give_back_memory

ready = load(Path(sys.argv[1])).ready("cuda")


def wait_for_the_gpu(_, inputs):
    inputs[0].sum().item()


ready.detector.backbone.register_forward_pre_hook(wait_for_the_gpu)
side = ready.detector.preprocess.config.taken
tiles = list(torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8))
expected = ready.runner(tiles).scores
for _ in range(3):
    assert (ready.runner(tiles).scores == expected).all()
give_back_memory(ready.device)
assert (ready.runner(tiles[:1]).scores == load(Path(sys.argv[1])).ready("cuda").runner(tiles[:1]).scores).all()
"""


def test_what_cannot_be_recorded_runs_step_by_step_and_says_so_once(artifact_path: Path) -> None:
    # In a process of its own: torch's allocator may not get over it.
    done = subprocess.run(
        [sys.executable, "-c", UNRECORDABLE, str(artifact_path)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no CUDA graphs") == 1


def test_a_gpu_has_one_lane() -> None:
    assert lane_of(torch.device("cuda")) is lane_of(torch.device("cuda", torch.cuda.current_device()))
