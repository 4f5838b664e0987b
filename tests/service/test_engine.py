"""The engine on a real detector: own results, batches, failures that stay where they are, and stopping."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.artifact import Artifact, load
from models.graph_runner import GraphRunner
from models.images import decode
from models.lane import InOrder
from service.engine import Engine
from service.errors import DeadlinePassed, EngineStopped, JudgingFailed, QueueFull
from service.runs import Reading, detect


@pytest.fixture
def engine() -> Iterator[Engine]:
    running = Engine(batch_limit=8, queue_limit=3)
    running.start()
    yield running
    running.stop()


class Gate:
    """Holds a real detector at the door of its forward pass, and notes the batches that come."""

    def __init__(self, artifact: Artifact) -> None:
        self.batches: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        artifact.detector.register_forward_pre_hook(self._pass)

    def _pass(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.batches.append(len(inputs[0]))
        self.entered.set()
        assert self.open.wait(timeout=60)


def tile(artifact: Artifact, data: bytes) -> torch.Tensor:
    return artifact.detector.preprocess.resize(decode(data))


def test_a_result_in_a_batch_is_the_result_alone(artifact: Artifact, good: Callable[[int], bytes]) -> None:
    tiles = [tile(artifact, good(seed)) for seed in range(5)]
    together = detect(artifact, tiles)
    for one, reading in zip(tiles, together, strict=True):
        (alone,) = detect(artifact, [one])
        assert reading.score == pytest.approx(alone.score, rel=1e-4)
        np.testing.assert_allclose(reading.map, alone.map, rtol=1e-4)
        assert reading.map.max() == pytest.approx(reading.score)


def test_what_waits_is_one_batch_and_each_gets_its_own(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact = load(artifact_path)
    tiles = [tile(artifact, good(seed)) for seed in range(7)]
    expected = [reading.score for reading in detect(artifact, tiles)]
    gate = Gate(artifact)

    async def ask() -> list[Reading]:
        first = asyncio.create_task(engine.read(artifact, tiles[0]))
        await asyncio.to_thread(gate.entered.wait)
        rest = [asyncio.create_task(engine.read(artifact, each)) for each in tiles[1:]]
        await asyncio.sleep(0)  # each has put its part into the queue
        gate.open.set()
        return await asyncio.gather(first, *rest)

    scores = [reading.score for reading in asyncio.run(ask())]
    assert gate.batches == [1, 6]
    assert len(set(scores)) == 7
    assert scores == pytest.approx(expected, rel=1e-4)


def test_categories_take_turns(
    engine: Engine, make: Callable[..., Path], tmp_path: Path, good: Callable[[int], bytes]
) -> None:
    busy, quiet = (load(make(tmp_path, category=name)) for name in ("busy", "quiet"))
    gate, order = Gate(busy), []
    for artifact in (busy, quiet):
        name = artifact.manifest.category
        artifact.detector.register_forward_hook(lambda *_, name=name: order.append(name))
    one = tile(busy, good(0))

    async def ask() -> None:
        first = asyncio.create_task(engine.read(busy, one))
        await asyncio.to_thread(gate.entered.wait)
        rest = [asyncio.create_task(engine.read(busy, one)) for _ in range(17)]
        rest.append(asyncio.create_task(engine.read(quiet, one)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *rest)

    asyncio.run(ask())
    assert order == ["busy", "busy", "quiet", "busy", "busy"]


def test_a_bad_part_does_not_fail_its_neighbours(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact = load(artifact_path)
    fine = tile(artifact, good(1))
    odd = torch.zeros(3, 32, 32, dtype=torch.uint8)  # not the size that the detector was made for
    gate = Gate(artifact)

    async def ask() -> list[Reading | BaseException]:
        first = asyncio.create_task(engine.read(artifact, fine))
        await asyncio.to_thread(gate.entered.wait)
        rest = [asyncio.create_task(engine.read(artifact, each)) for each in (fine, odd, fine)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    first, left, middle, right = asyncio.run(ask())
    assert isinstance(middle, JudgingFailed)
    for reading in (left, right):
        assert isinstance(reading, Reading)
        assert reading.score == pytest.approx(first.score, rel=1e-4)


def test_a_part_whose_caller_has_gone_is_not_run(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact = load(artifact_path)
    gate, one = Gate(artifact), tile(artifact, good(0))

    async def ask() -> None:
        first = asyncio.create_task(engine.read(artifact, one))
        await asyncio.to_thread(gate.entered.wait)
        gone = asyncio.create_task(engine.read(artifact, one))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.open.set()
        await first
        await engine.read(artifact, one)

    asyncio.run(ask())
    assert gate.batches == [1, 1]


def test_cancelling_while_a_batch_runs_harms_nobody(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact = load(artifact_path)
    gate, one = Gate(artifact), tile(artifact, good(0))

    async def ask() -> Reading:
        running = asyncio.create_task(engine.read(artifact, one))
        await asyncio.to_thread(gate.entered.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open.set()
        return await engine.read(artifact, one)

    assert asyncio.run(ask()).score > 0
    assert engine.alive


def test_places_are_limited_per_category_and_given_back(engine: Engine) -> None:
    with engine.admit("plate"), engine.admit("plate"), engine.admit("plate"):
        with pytest.raises(QueueFull, match="3 parts"), engine.admit("plate"):
            pytest.fail("a fourth place was given")
        with engine.admit("ring"):
            pass
    with engine.admit("plate"):
        pass


def test_stopping_finishes_what_waits_and_refuses_more(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path)
    gate, one = Gate(artifact), tile(artifact, good(0))
    engine = Engine(batch_limit=1, queue_limit=8)
    engine.start()

    async def ask() -> list[Reading]:
        waiting = [asyncio.create_task(engine.read(artifact, one)) for _ in range(3)]
        await asyncio.to_thread(gate.entered.wait)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        await asyncio.sleep(0)
        gate.open.set()
        await stopping
        readings = await asyncio.gather(*waiting)
        with pytest.raises(EngineStopped):
            await engine.read(artifact, one)
        return readings

    assert len(asyncio.run(ask())) == 3
    assert not engine.alive
    assert not engine.died


def test_a_dying_thread_answers_everybody(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path)
    one = tile(artifact, good(0))
    engine = Engine(batch_limit=1, queue_limit=8)
    gate = Gate(artifact)

    def die(*_: object) -> None:
        raise SystemExit("as if the interpreter were going down")

    artifact.detector.register_forward_hook(die)
    engine.start()

    async def ask() -> list[Reading | BaseException]:
        waiting = [asyncio.create_task(engine.read(artifact, one)) for _ in range(3)]
        await asyncio.to_thread(gate.entered.wait)
        gate.open.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(ask())] == [EngineStopped] * 3
    assert not engine.alive
    engine.stop()  # waits for the thread's end
    assert engine.died


def test_a_part_whose_deadline_passes_while_it_waits_is_not_run(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact = load(artifact_path)
    gate, one = Gate(artifact), tile(artifact, good(0))

    async def ask() -> None:
        first = asyncio.create_task(engine.read(artifact, one))
        await asyncio.to_thread(gate.entered.wait)
        with pytest.raises(DeadlinePassed, match="was not judged"):  # while the engine is still busy
            await engine.read(artifact, one, deadline=time.perf_counter() + 0.01)
        gate.open.set()
        await first
        await engine.read(artifact, one, deadline=time.perf_counter() + 60)

    asyncio.run(ask())
    assert gate.batches == [1, 1]


def test_a_batch_that_does_not_fit_is_halved(engine: Engine, artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path)
    tiles = [tile(artifact, good(seed)) for seed in range(9)]
    expected = [reading.score for reading in detect(artifact, tiles)]
    gate = Gate(artifact)

    def of_little_memory(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 3:
            raise torch.OutOfMemoryError("as a device would")

    artifact.detector.register_forward_pre_hook(of_little_memory)

    async def ask() -> list[Reading]:
        first = asyncio.create_task(engine.read(artifact, tiles[0]))
        await asyncio.to_thread(gate.entered.wait)
        rest = [asyncio.create_task(engine.read(artifact, each)) for each in tiles[1:]]
        await asyncio.sleep(0)
        gate.open.set()
        readings = await asyncio.gather(first, *rest)
        again = [asyncio.create_task(engine.read(artifact, each)) for each in tiles[:4]]
        await asyncio.gather(*again)
        return readings

    scores = [reading.score for reading in asyncio.run(ask())]
    assert scores == pytest.approx(expected, rel=1e-4)
    assert gate.batches[:8] == [1, 8, 4, 2, 2, 4, 2, 2]
    assert max(gate.batches[8:]) <= 2, "what did not fit once is not tried again"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("as a device would"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_one_picture_that_does_not_fit_has_no_verdict(
    engine: Engine, artifact_path: Path, good: Callable[[int], bytes], error: Exception
) -> None:
    artifact = load(artifact_path)

    def of_no_memory(*_: object) -> None:
        raise error

    artifact.detector.register_forward_pre_hook(of_no_memory)
    with pytest.raises(JudgingFailed, match="too little memory"):
        asyncio.run(engine.read(artifact, tile(artifact, good(0))))


def test_a_batch_may_wait_for_company(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path)
    one, sizes = tile(artifact, good(0)), list[int]()
    engine = Engine(batch_limit=3, queue_limit=8, batch_wait=60, on_batch=sizes.append)
    engine.start()

    async def ask() -> None:
        await asyncio.gather(*(engine.read(artifact, one) for _ in range(3)))  # full: there is no need to wait

    asyncio.run(ask())
    assert sizes == [3]
    engine.stop()


def test_what_waits_for_company_is_finished_when_it_stops(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path)
    engine = Engine(batch_limit=3, queue_limit=8, batch_wait=60)
    engine.start()

    async def ask() -> Reading:
        waiting = asyncio.create_task(engine.read(artifact, tile(artifact, good(0))))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.stop)
        return await waiting

    assert asyncio.run(ask()).score > 0


def test_several_places_are_taken_at_once_or_not_at_all(engine: Engine) -> None:
    with engine.admit("plate", 2):
        assert engine.in_hand()["plate"] == 2
        with pytest.raises(QueueFull, match="2 parts"), engine.admit("plate", 2):
            pytest.fail("a fourth place was given")
        with engine.admit("plate"):
            pass
    assert engine.in_hand()["plate"] == 0


def side_by_side(artifact_path: Path) -> Artifact:
    """An artifact whose runner lets one batch begin while another is under way, as on a GPU."""
    artifact = load(artifact_path)
    return replace(artifact, runner=GraphRunner(artifact.detector, InOrder(artifact.device)))


async def burst(engine: Engine, artifact: Artifact, gate: Gate, tiles: list[torch.Tensor]) -> list[Reading | Exception]:
    """Ask for the first tile, and for the others while that is run."""
    first = asyncio.create_task(engine.read(artifact, tiles[0]))
    await asyncio.to_thread(gate.entered.wait)
    rest = [asyncio.create_task(engine.read(artifact, each)) for each in tiles[1:]]
    await asyncio.sleep(0)
    gate.open.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)


def test_full_batches_begin_before_the_one_ahead_is_finished(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact, order = side_by_side(artifact_path), []
    tiles = [tile(artifact, good(seed)) for seed in range(6)]
    expected = [detect(artifact, [each])[0].score for each in tiles]
    gate = Gate(artifact)
    artifact.detector.register_forward_pre_hook(lambda *_: order.append("begun"))
    engine = Engine(batch_limit=2, queue_limit=8, on_batch=lambda size: order.append(f"{size} done"))
    engine.start()
    readings = asyncio.run(burst(engine, artifact, gate, tiles))
    engine.stop()
    assert [reading.score for reading in readings] == pytest.approx(expected, rel=2e-3)
    # 1, 2, 2 and 1: the last is not full, and begins when nothing is under way any more.
    assert order == ["begun", "begun", "1 done", "begun", "2 done", "2 done", "begun", "1 done"]


def test_parts_that_nobody_waits_for_do_not_make_a_batch_full(
    artifact_path: Path, good: Callable[[int], bytes]
) -> None:
    artifact, order = side_by_side(artifact_path), []
    gate, one = Gate(artifact), tile(artifact, good(0))
    artifact.detector.register_forward_pre_hook(lambda *_: order.append("begun"))
    engine = Engine(batch_limit=2, queue_limit=8, on_batch=lambda size: order.append(f"{size} done"))
    engine.start()

    async def ask() -> None:
        first = asyncio.create_task(engine.read(artifact, one))
        await asyncio.to_thread(gate.entered.wait)
        gone, left = (asyncio.create_task(engine.read(artifact, one)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.open.set()
        await asyncio.gather(first, left)

    asyncio.run(ask())
    engine.stop()
    assert order == ["begun", "1 done", "begun", "1 done"]


def test_a_batch_that_cannot_begin_is_run_again_in_its_turn(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = side_by_side(artifact_path)
    tiles = [tile(artifact, good(seed)) for seed in range(9)]
    expected = [detect(artifact, [each])[0].score for each in tiles]
    gate = Gate(artifact)

    def of_little_memory(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("as a device would")

    artifact.detector.register_forward_pre_hook(of_little_memory)
    engine = Engine(batch_limit=4, queue_limit=16)
    engine.start()
    readings = asyncio.run(burst(engine, artifact, gate, tiles))
    engine.stop()
    assert [reading.score for reading in readings] == pytest.approx(expected, rel=2e-3)


def test_a_dying_thread_answers_what_is_begun_side_by_side(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = side_by_side(artifact_path)
    tiles = [tile(artifact, good(seed)) for seed in range(4)]
    gate = Gate(artifact)

    def die(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) == 2:
            raise SystemExit("as if the interpreter were going down")

    artifact.detector.register_forward_pre_hook(die)
    engine = Engine(batch_limit=2, queue_limit=8)
    engine.start()
    answers = asyncio.run(burst(engine, artifact, gate, tiles))
    assert [type(answer) for answer in answers] == [EngineStopped] * 4
    engine.stop()
    assert engine.died


@pytest.mark.gpu
def test_on_a_gpu_each_gets_its_own_whatever_the_batches(artifact_path: Path, good: Callable[[int], bytes]) -> None:
    artifact = load(artifact_path).ready("cuda")
    tiles = [tile(artifact, good(seed)) for seed in range(60)]
    expected = [reading.score for each in tiles for reading in detect(artifact, [each])]
    engine = Engine(batch_limit=8, queue_limit=64)
    engine.start()

    async def ask() -> list[Reading]:
        return await asyncio.gather(*(engine.read(artifact, each) for each in tiles))

    for _ in range(5):
        scores = [reading.score for reading in asyncio.run(ask())]
        assert scores == pytest.approx(expected, rel=2e-2)  # half precision, in batches of other sizes
    engine.stop()
