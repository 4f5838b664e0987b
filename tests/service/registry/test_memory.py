"""Loading: once, within the budget, shared backbones, and that eviction breaks nobody."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models import artifact as module
from models.artifact import Artifact, load
from models.detector import Detector
from models.errors import ArtifactError, ArtifactTooLarge
from models.images import decode
from models.precision import Precision
from models.preprocess import PreprocessConfig
from models.weights import fingerprint
from models.whole_numbers import in_whole_numbers
from service.registry import memory as memory_module
from service.registry.memory import Memory, NoRoom
from service.registry.scan import Folder, Sound
from service.runs import detect
from training.recipe import GaussianSection

Put = Callable[..., Path]
Picture = Callable[[int], bytes]
CPU = torch.device("cpu")


@pytest.fixture
def files(put: Put, folder: Path, library: dict[str, Path]) -> dict[str, Sound]:
    put(*library)
    found = Folder(folder).look().sound
    return {name: found[path.parent.name][path.stem] for name, path in library.items()}


def key(file: Sound) -> tuple[str, str]:
    return file.category, file.version


def size(file: Sound) -> int:
    detector = load(file.path).ready("cpu").detector
    return sum(tensor.numel() * tensor.element_size() for tensor in detector.buffers())


def score(artifact: Artifact, data: bytes) -> float:
    return detect(artifact, [artifact.detector.preprocess.resize(decode(data))])[0].score


def test_many_who_ask_get_one_artifact_from_one_load(files: dict[str, Sound], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []
    begun = threading.Barrier(8)

    def counted(path: Path) -> Artifact:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(memory_module, "load", counted)
    memory = Memory(CPU, budget=None)

    def ask() -> Artifact:
        begun.wait()
        return memory.load(files["a"])

    with ThreadPoolExecutor(8) as pool:
        given = [each.result() for each in [pool.submit(ask) for _ in range(8)]]
    assert len({id(artifact) for artifact in given}) == 1
    assert loads == [files["a"].path]
    assert memory.get(key(files["a"])) is given[0]


def test_equal_backbones_are_one_and_judge_as_before(files: dict[str, Sound], good: Picture, bad: Picture) -> None:
    memory = Memory(CPU, budget=None)
    plate, ring, other = (memory.load(files[name]) for name in ("a", "ring", "b"))
    assert ring.detector.backbone is plate.detector.backbone
    assert other.detector.backbone is not plate.detector.backbone
    for name, artifact in (("a", plate), ("ring", ring), ("b", other)):
        alone = load(files[name].path).ready("cpu")
        for data in (good(1), bad(1)):
            assert score(artifact, data) == score(alone, data)
    backbone = sum(tensor.numel() * tensor.element_size() for tensor in plate.detector.backbone.buffers())
    total = sum(size(files[name]) for name in ("a", "ring", "b"))
    assert memory.bytes == total - backbone
    assert sum(memory.sizes.values()) == total


def test_backbones_for_pictures_of_different_sizes_are_not_one(
    make: Callable[..., Path], tmp_path: Path, good: Picture
) -> None:
    edges = {"plate": 64, "ring": 96}
    for category, edge in edges.items():
        make(tmp_path, category=category, preprocess=PreprocessConfig(image_size=edge, reduced_jpeg=True))
    sound, memory = Folder(tmp_path).look().sound, Memory(CPU, budget=None)
    plate, ring = (memory.load(next(iter(sound[category].values()))) for category in edges)
    # The same weights, but they lie in memory as suits pictures of one size (`models.fused_backbone`).
    assert len({fingerprint(load(each.path).detector.backbone.state_dict()) for each in (plate, ring)}) == 1
    assert ring.detector.backbone is not plate.detector.backbone
    assert score(ring, good(1)) == score(load(ring.path).ready("cpu"), good(1))


def test_backbones_for_pictures_of_different_normalisation_are_not_one(
    make: Callable[..., Path], tmp_path: Path, good: Picture
) -> None:
    plain = PreprocessConfig(image_size=64, reduced_jpeg=True)
    for category, preprocess in {"plate": plain, "ring": in_whole_numbers(plain)}.items():
        make(tmp_path, category=category, preprocess=preprocess)
    sound, memory = Folder(tmp_path).look().sound, Memory(CPU, budget=None)
    plate, ring = (memory.load(next(iter(sound[category].values()))) for category in ("plate", "ring"))
    assert len({fingerprint(load(each.path).detector.backbone.state_dict()) for each in (plate, ring)}) == 1
    # One's first convolution may be in half precision where the other's is not.
    assert ring.detector.backbone is not plate.detector.backbone
    assert score(ring, good(1)) == score(load(ring.path).ready("cpu"), good(1))


def test_beyond_the_budget_the_one_unused_for_longest_goes(files: dict[str, Sound]) -> None:
    memory = Memory(CPU, budget=2 * size(files["a"]) + 1000)
    for name in ("a", "b"):
        memory.load(files[name])
    assert memory.get(key(files["a"])) is not None  # used: b is the one now
    memory.load(files["c"])
    assert set(memory.sizes) == {key(files["a"]), key(files["c"])}
    assert memory.bytes <= 2 * size(files["a"]) + 1000
    memory.load(files["ring"])  # little of its own beside a's backbone
    assert key(files["ring"]) in memory.sizes


def test_whoever_holds_an_evicted_artifact_goes_on(files: dict[str, Sound], good: Picture) -> None:
    memory = Memory(CPU, budget=1)
    first = memory.load(files["a"])
    before = score(first, good(1))
    second = memory.load(files["ring"])
    assert list(memory.sizes) == [key(files["ring"])]  # the budget is too small for any: one stays
    assert second.detector.backbone is first.detector.backbone  # still alive, so still shared
    assert score(first, good(1)) == before
    assert memory.get(key(files["a"])) is None


def test_what_nobody_holds_is_freed(files: dict[str, Sound]) -> None:
    memory = Memory(CPU, budget=None)
    gone = [weakref.ref(memory.load(files[name]).detector.scorer) for name in ("a", "ring")]
    memory.keep([key(files["ring"])])
    gc.collect()
    assert [each() is None for each in gone] == [True, False]
    memory.keep([])
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert memory.bytes == 0


def test_an_error_reaches_all_who_ask_and_the_next_tries_again(files: dict[str, Sound]) -> None:
    memory = Memory(CPU, budget=None)
    path = files["a"].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with ThreadPoolExecutor(4) as pool:
        for asked in [pool.submit(memory.load, files["a"]) for _ in range(4)]:
            assert isinstance(asked.exception(), ArtifactError)
    path.write_bytes(content)
    assert memory.load(files["a"]).version == path.stem


def test_on_a_full_device_another_makes_way(files: dict[str, Sound], monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is full once for each of the first `full` moves; what is tested is who goes and who stays."""
    memory = Memory(CPU, budget=None)
    memory.load(files["a"])
    memory.load(files["b"])
    real, full = module._move, [1]

    def move(detector: Detector, place: torch.device, precision: Precision) -> Detector:
        if full[0] > 0:
            full[0] -= 1
            raise ArtifactTooLarge("it does not fit.")
        return real(detector, place, precision)

    monkeypatch.setattr(module, "_move", move)
    with pytest.raises(ArtifactTooLarge):
        memory.load(files["c"], sacrifices=0)
    assert list(memory.sizes) == [key(files["a"]), key(files["b"])]
    full[0] = 1
    memory.load(files["c"])
    assert list(memory.sizes) == [key(files["b"]), key(files["c"])]
    full[0] = 9
    with pytest.raises(ArtifactTooLarge):
        memory.load(files["a"])
    assert list(memory.sizes) == [key(files["c"])]


@pytest.mark.gpu
def test_backbones_are_shared_on_the_gpu(files: dict[str, Sound], good: Picture) -> None:
    memory = Memory(torch.device("cuda"), budget=None)
    plate, ring = memory.load(files["a"]), memory.load(files["ring"])
    assert ring.detector.backbone is plate.detector.backbone
    assert {tensor.device.type for tensor in ring.detector.state_dict().values()} == {"cuda"}
    assert score(ring, good(1)) == pytest.approx(score(load(files["ring"].path), good(1)), rel=1e-3)


def test_without_sacrifices_nobody_goes(files: dict[str, Sound]) -> None:
    memory = Memory(CPU, budget=size(files["a"]) + 1000)
    memory.load(files["a"], sacrifices=0)
    with pytest.raises(NoRoom, match="budget"):
        memory.load(files["b"], sacrifices=0)
    assert list(memory.sizes) == [key(files["a"])]
    memory.load(files["ring"], sacrifices=1)
    assert key(files["ring"]) in memory.sizes


def test_without_sacrifices_nobody_goes_for_one_that_is_larger_when_it_is_ready(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    one_direction = GaussianSection(rank=(1,), shrinkage=(0.1,), pooling=(1,), dimensions=1.0)
    for category in ("plate", "ring"):  # one backbone, and directions that are padded for the loops of a CPU
        make(tmp_path, category=category, section=one_direction)
    first, second = (next(iter(each.values())) for each in Folder(tmp_path).look().sound.values())
    roomy = Memory(CPU, budget=None, precision="float32")
    roomy.load(first)
    alone = roomy.bytes
    roomy.load(second)
    scorer = load(second.path).detector.scorer
    as_read = sum(tensor.numel() * tensor.element_size() for tensor in scorer.buffers())
    assert alone + as_read < roomy.bytes - 1, "it is not larger when it is ready"
    memory = Memory(CPU, budget=roomy.bytes - 1, precision="float32")
    memory.load(first)
    with pytest.raises(NoRoom, match="budget"):
        memory.load(second, sacrifices=0)
    assert list(memory.sizes) == [key(first)]


def test_who_cannot_be_moved_takes_nobodys_place(files: dict[str, Sound], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(CPU, budget=size(files["a"]) + 1000)
    memory.load(files["a"])

    def broken(*_: object) -> Detector:
        raise ArtifactError("it cannot be put there.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_move", broken)
        with pytest.raises(ArtifactError):
            memory.load(files["b"])
    assert list(memory.sizes) == [key(files["a"])]
    memory.load(files["b"])
    assert list(memory.sizes) == [key(files["b"])]
