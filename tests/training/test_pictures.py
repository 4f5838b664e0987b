import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.alignment import AlignmentConfig
from models.errors import DatasetError
from models.preprocess import Preprocess, PreprocessConfig
from models.taken import take
from training.pictures import Pictures
from training.progress import Progress

SMALL = Preprocess(PreprocessConfig(image_size=64))


def written(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Noise of these (width, height), in files."""
    paths = []
    for index, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_pictures_are_as_the_network_takes_them(tmp_path: Path) -> None:
    paths = written(tmp_path, (80, 60), (64, 64), (33, 90))
    scratch = tmp_path / "scratch"
    pictures = Pictures(paths, scratch, Progress.silent())
    images = pictures.read(SMALL)
    assert (images.shape, images.dtype) == ((3, 3, 64, 64), torch.uint8)
    for image, path in zip(images, paths, strict=True):
        assert torch.equal(image, SMALL.resize(np.asarray(Image.open(path))))
    assert not any(scratch.rglob("*"))
    wide = Preprocess(PreprocessConfig(image_size=64, align=AlignmentConfig(name="shift")))
    assert pictures.read(wide).shape == (3, 3, 128, 128)


def test_the_size_is_the_first_pictures_height_and_width(tmp_path: Path) -> None:
    assert Pictures(written(tmp_path, (80, 60), (64, 64)), tmp_path, Progress.silent()).size == (60, 80)


@pytest.mark.parametrize(
    ("sizes", "square"),
    [
        ([(64, 64), (90, 90)], True),
        ([(100, 99), (99, 100)], True),
        ([(64, 64), (80, 64)], False),
        ([(64, 80)], False),
    ],
)
def test_square_are_pictures_that_all_are_nearly(tmp_path: Path, sizes: list[tuple[int, int]], square: bool) -> None:
    pictures = Pictures(written(tmp_path, *sizes), tmp_path, Progress.silent())
    pictures.read(SMALL)
    assert pictures.square is square


def test_of_pictures_that_hold_the_same_the_first_is_read(tmp_path: Path) -> None:
    """Whatever files they are: another format that loses nothing shows the same part twice."""
    paths = written(tmp_path, (64, 64), (80, 60), (90, 70))
    shutil.copy(paths[0], tmp_path / "a.png")
    Image.open(paths[0]).save(tmp_path / "b.bmp")
    (tmp_path / "more").mkdir()
    shutil.copy(paths[1], tmp_path / "more/1.png")
    Image.open(paths[1]).save(tmp_path / "c.tif")
    copies = [tmp_path / name for name in ("a.png", "b.bmp", "more/1.png", "c.tif")]
    pictures = Pictures([*paths[:2], *copies, paths[2]], tmp_path, Progress.silent())
    assert pictures.copies is None
    images = pictures.read(SMALL)
    assert torch.equal(images, Pictures(paths, tmp_path, Progress.silent()).read(SMALL))
    assert pictures.paths == paths
    assert pictures.copies is not None
    assert f"left out, 4 of 7 (a.png is 0.png, b.bmp is 0.png, {copies[2]} is {paths[1]}, ...)" in pictures.copies
    told = pictures.copies
    assert len(pictures.read(SMALL)) == 3
    assert pictures.copies == told


def test_a_file_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    one, two = written(tmp_path, (64, 64), (80, 60))
    for again in (one, Path(one)):
        pictures = Pictures([one, two, again], tmp_path, Progress.silent())
        assert torch.equal(pictures.read(SMALL), Pictures([one, two], tmp_path, Progress.silent()).read(SMALL))
        assert f"1 of 3 ({one} is given twice)" in str(pictures.copies)


def test_what_looks_the_same_only_when_it_is_small_counts_once_from_then_on(tmp_path: Path) -> None:
    paths = written(tmp_path, (64, 64), (256, 256))
    fine = np.asarray(Image.open(paths[1])).copy()
    fine[0, 0, 0] ^= 1
    Image.fromarray(fine).save(tmp_path / "2.png")
    pictures = Pictures([*paths, tmp_path / "2.png"], tmp_path, Progress.silent())
    assert len(pictures.read(Preprocess(PreprocessConfig(image_size=256)))) == 3
    assert pictures.copies is None
    assert len(pictures.read(SMALL)) == 2
    assert pictures.paths == paths
    assert "1 of 3 (2.png is 1.png)" in str(pictures.copies)


def test_every_picture_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    paths = written(tmp_path, (64, 64), (20, 64), (64, 64))
    paths[2].write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match="2 of 3 pictures cannot be used") as refusal:
        Pictures(paths, tmp_path, Progress.silent()).read(SMALL)
    assert "1.png: The picture is 20x64 pixels" in str(refusal.value)
    assert "2.png: " in str(refusal.value)
    assert "0.png" not in str(refusal.value)
    assert "more" not in str(refusal.value)


def test_of_many_unusable_ones_the_first_are_named(tmp_path: Path) -> None:
    paths = written(tmp_path, *[(64, 64)] * 13)
    for path in paths[1:]:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"12 of 13 .*/10\.png.* \(and 2 more\)$") as refusal:
        Pictures(paths, tmp_path, Progress.silent()).read(SMALL)
    assert "11.png" not in str(refusal.value)


def test_a_first_picture_that_cannot_be_read_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"0\.png"):
        _ = Pictures([tmp_path / "0.png"], tmp_path, Progress.silent()).size


def test_sixteen_bits_of_which_few_are_used_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        pixels = np.random.default_rng(index).integers(0, 4096, (64, 64), dtype=np.uint16)
        Image.fromarray(pixels).save(path)
    with pytest.raises(DatasetError, match="16-bit"):
        Pictures(paths, tmp_path, Progress.silent()).read(SMALL)


def test_pictures_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    paths = written(tmp_path, *[(64, 64)] * 3)
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    with pytest.raises(DatasetError, match="All 3 pictures are the same"):
        Pictures(paths, tmp_path, Progress.silent()).read(SMALL)
    Pictures(paths[:1], tmp_path, Progress.silent()).read(SMALL)


@pytest.mark.parametrize(
    ("sizes", "warned"),
    [([(80, 60), (160, 120)], False), ([(100, 99), (99, 100)], False), ([(80, 60), (60, 80)], True)],
)
def test_pictures_of_different_shapes_are_told(tmp_path: Path, sizes: list[tuple[int, int]], warned: bool) -> None:
    pictures = Pictures(written(tmp_path, *sizes), tmp_path, Progress.silent())
    assert pictures.odd_shapes is None  # nothing was read
    pictures.read(SMALL)
    assert (pictures.odd_shapes is not None) is warned
    if warned:
        assert "different shapes (80x60, 60x80)" in str(pictures.odd_shapes)


def test_large_jpegs_count_by_their_own_size(tmp_path: Path) -> None:
    paths = []
    for index, size in enumerate([(512, 512), (512, 256)]):  # width, height
        noise = np.random.default_rng(index).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
        paths.append(tmp_path / f"{index}.jpg")
        Image.fromarray(noise).save(paths[-1])
    reduced = Preprocess(PreprocessConfig(image_size=32, reduced_jpeg=True))
    pictures = Pictures(paths, tmp_path, Progress.silent())
    images = pictures.read(reduced)
    assert "(512x256, 512x512)" in str(pictures.odd_shapes)
    for image, path in zip(images, paths, strict=True):
        assert torch.equal(image, take(path.read_bytes(), reduced).tile)
        assert not torch.equal(image, reduced.resize(np.asarray(Image.open(path).convert("RGB"))))


def test_the_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    paths = written(tmp_path, *[(64, 64)] * 20, (20, 20), *[(64, 64)] * 20)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            found.append(Pictures(paths[:20] + paths[21:], tmp_path, Progress.silent()).read(SMALL))
            with pytest.raises(DatasetError, match=r"1 of 41 .*/20\.png: The picture is 20x20 pixels"):
                Pictures(paths, tmp_path, Progress.silent()).read(SMALL)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
