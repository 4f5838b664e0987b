from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from training.benchmark.keys import CellKeys
from training.benchmark.method import chosen_methods
from training.benchmark.request import BenchmarkRequest
from training.samples import write_category


@pytest.fixture
def asked(ask: Callable[..., BenchmarkRequest], tmp_path: Path) -> BenchmarkRequest:
    write_category(tmp_path, "flange", train=2, test_good=1, test_defective=1, size=64)
    return ask(tmp_path, chosen_methods(["padim", "default"], peers=True))


def key(request: BenchmarkRequest) -> str:
    return CellKeys(request).of("flange")["padim"]


def test_the_same_inputs_have_the_same_key_and_each_method_its_own(asked: BenchmarkRequest) -> None:
    keys = CellKeys(asked).of("flange")
    assert keys == CellKeys(asked).of("flange")
    assert len(set(keys.values())) == len(asked.methods) == 4


def test_other_settings_weights_or_textures_are_other_cells(asked: BenchmarkRequest) -> None:
    keys = {
        key(asked),
        key(replace(asked, false_reject_rate=0.1)),
        key(replace(asked, arch="resnet18")),
        key(replace(asked, textures=asked.data / "flange/train/good")),
    }
    assert len(keys) == 4


def test_every_picture_and_its_place_counts(asked: BenchmarkRequest) -> None:
    before = {key(asked)}
    defect = sorted(path for path in (asked.data / "flange/test").iterdir() if path.name != "good")[0]
    good, bad = (sorted(folder.iterdir())[0] for folder in (defect.with_name("good"), defect))
    one, other = good.read_bytes(), bad.read_bytes()
    good.write_bytes(other)  # the same pictures, the other way round
    bad.write_bytes(one)
    before.add(key(asked))
    mask = sorted((asked.data / "flange/ground_truth" / defect.name).iterdir())[0]
    mask.write_bytes(other)
    before.add(key(asked))
    (asked.data / "flange/train/good/001.png").write_bytes(one)
    before.add(key(asked))
    assert len(before) == 4


def test_a_category_that_cannot_be_used_still_has_keys(asked: BenchmarkRequest) -> None:
    for path in (asked.data / "flange/train/good").iterdir():
        path.unlink()
    assert key(asked)
