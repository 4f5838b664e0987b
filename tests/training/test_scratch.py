import errno
import mmap
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import RecipeError
from training.scratch import _SHARE, _Lent, scratch, scratch_tensor

GB = 10**9


@pytest.fixture(autouse=True, params=["memory", "file"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Arrays lie there."""
    monkeypatch.setattr("training.scratch.available_memory", lambda: GB if request.param == "memory" else 0)
    return str(request.param)


@pytest.fixture
def in_file(where: str) -> None:
    if where != "file":
        pytest.skip("of files alone")


def test_an_array_of_zeros_that_can_be_written(tmp_path: Path) -> None:
    array = scratch((3, 4, 5), np.float32, folder=tmp_path / "new" / "folder")
    assert (array.shape, array.dtype) == ((3, 4, 5), np.float32)
    assert not array.any()
    array[1, 2] = 7
    assert array.sum() == 35


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 0), (0, 3), ()])
def test_a_tensor_of_any_type_and_shape(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = scratch_tensor(shape, dtype, folder=tmp_path)
    assert (tensor.shape, tensor.dtype) == (shape, dtype)
    assert tensor.is_contiguous()
    assert not tensor.any()
    assert bool((tensor.fill_(7) == 7).all())
    assert list(tmp_path.iterdir()) == []


def test_it_has_no_name_even_while_it_is_in_use(tmp_path: Path) -> None:
    arrays = [scratch((10,), np.uint8, folder=tmp_path) for _ in range(2)]
    arrays[0][:] = 1
    assert not arrays[1].any()
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_said_when_it_is_asked_for_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no room for 1000000\.0 GB .*--artifacts"):
        scratch((10**15,), np.uint8, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "said"),
    [(10**8, "0.1 GB"), (10**8 - 1, "100.0 MB"), (1_500_000, "1.5 MB"), (99_999, "100.0 kB"), (1000, "1.0 kB")],
)
@pytest.mark.usefixtures("in_file")
def test_how_much_there_is_no_room_for(tmp_path: Path, size: int, said: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        with pytest.raises(RecipeError, match=f"no room for {said} of pictures"):
            scratch((size,), np.uint8, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("in_file")
def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="file"):
        scratch((1,), np.uint8, folder=tmp_path / "file" / "folder")


def test_what_is_small_beside_the_memory_that_is_left_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.scratch.available_memory", lambda: int(1000 / _SHARE))
    monkeypatch.setattr("training.scratch._lent", _Lent())
    folder = tmp_path / "folder"
    kept = [scratch((600,), np.uint8, folder=folder)]
    assert not folder.exists()
    kept.append(scratch((600,), np.uint8, folder=folder))
    assert folder.exists()
    kept.clear()
    scratch((600,), np.uint8, folder=tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_memory_that_is_refused_is_a_file_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = mmap.mmap

    def refused(file: int, *arguments: Any, **others: Any) -> mmap.mmap:
        if file == -1:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return mapped(file, *arguments, **others)

    monkeypatch.setattr("mmap.mmap", refused)
    array = scratch((10,), np.uint8, folder=tmp_path / "folder")
    array[:] = 7
    assert (tmp_path / "folder").exists()
