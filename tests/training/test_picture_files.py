from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.errors import DatasetError
from training.picture_files import (
    check_depth,
    fingerprint,
    read_ignore_mask,
    read_image,
    read_mask,
)

RED = np.full((6, 8, 3), (200, 10, 20), np.uint8)


def put(path: Path, pixels: np.ndarray = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mask(*, size: tuple[int, int] = (6, 8), value: int = 255) -> np.ndarray:
    pixels = np.zeros(size, np.uint8)
    pixels[1:3, 2:5] = value
    return pixels


def test_images_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(put(tmp_path / "a.png")), RED)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(RED).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (8, 6, 3)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    whole = put(tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_bytes(b"hello")
    for name in ("half.png", "text.png", "gone.png"):
        with pytest.raises(DatasetError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("value", [1, 128, 255])
def test_a_mask_is_true_on_the_defect_however_bright(tmp_path: Path, value: int) -> None:
    found = read_mask(put(tmp_path / "m.png", mask(value=value)), size=(6, 8))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, mask() > 0)


def test_soft_edges_of_a_mask_count_from_half_on(tmp_path: Path) -> None:
    soft = mask()
    soft[0, 0], soft[0, 1] = 100, 150
    found = read_mask(put(tmp_path / "m.png", soft))
    assert (bool(found[0, 0]), bool(found[0, 1])) == (False, True)


def test_a_colour_mask(tmp_path: Path) -> None:
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[1:3, 2:5, 2] = 255
    np.testing.assert_array_equal(read_mask(put(tmp_path / "m.png", colours)), mask() > 0)


def test_useless_masks_are_named(tmp_path: Path) -> None:
    path = put(tmp_path / "m.png", mask())
    with pytest.raises(DatasetError, match=r"m\.png is 8x6 pixels, but its picture is 6x8"):
        read_mask(path, size=(8, 6))
    with pytest.raises(DatasetError, match=r"m\.png marks nothing"):
        read_mask(put(path, mask(value=0)))


def test_an_ignore_mask_may_have_any_size_of_the_pictures_shape(tmp_path: Path) -> None:
    path = put(tmp_path / "ignore.png", mask(value=7))
    for size in (None, (6, 8), (600, 800), (599, 803)):
        np.testing.assert_array_equal(read_ignore_mask(path, size=size), mask() > 0)


@pytest.mark.parametrize("size", [(8, 6), (600, 810), (600, 790), (6, 6)])
def test_an_ignore_mask_of_another_shape_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    path = put(tmp_path / "ignore.png", mask())
    with pytest.raises(DatasetError, match=rf"ignore\.png is 8x6 pixels, of another shape.* {size[1]}x{size[0]}"):
        read_ignore_mask(path, size=size)


def test_useless_ignore_masks_are_named(tmp_path: Path) -> None:
    path = put(tmp_path / "ignore.png", mask(value=0))
    with pytest.raises(DatasetError, match=r"ignore\.png: nothing is painted"):
        read_ignore_mask(path)
    with pytest.raises(DatasetError, match=r"ignore\.png: everything is painted"):
        read_ignore_mask(put(path, RED))
    path.write_bytes(b"hello")
    with pytest.raises(DatasetError, match=r"ignore\.png: These 5 bytes"):
        read_ignore_mask(path)
    with pytest.raises(DatasetError, match=r"ignore\.jpg: An ignore mask must be a PNG"):
        read_ignore_mask(put(tmp_path / "ignore.jpg", mask()))
    with pytest.raises(DatasetError, match=r"gone\.png cannot be read: No such file or directory\.$"):
        read_ignore_mask(tmp_path / "gone.png")
    with pytest.raises(DatasetError, match=r"cannot be read: it is a folder, and a picture is wanted\.$"):
        read_ignore_mask(tmp_path)


def test_the_fingerprint_follows_names_and_bytes_alone(tmp_path: Path) -> None:
    first = [put(tmp_path / "one" / name) for name in ("a.png", "b.png")]
    second = [put(tmp_path / "two" / name) for name in ("a.png", "b.png")]
    known = fingerprint(first)
    assert len(known) == 64
    assert fingerprint(second[::-1]) == known
    assert fingerprint(first[:1]) != known
    put(first[0], 255 - RED)
    assert fingerprint(first) != known
    second[0].rename(tmp_path / "two/c.png")
    assert fingerprint([tmp_path / "two/c.png", second[1]]) != known


def _sixteen_bit(path: Path, *, largest: int) -> Path:
    Image.fromarray(np.linspace(0, largest, 64 * 64).reshape(64, 64).astype(np.uint16)).save(path)
    return path


def test_sixteen_bit_pictures_of_a_twelve_bit_camera_are_refused(tmp_path: Path) -> None:
    dark = [_sixteen_bit(tmp_path / f"{n}.png", largest=4095) for n in range(3)]
    with pytest.raises(DatasetError, match="shift them left by 4 bits"):
        check_depth(dark)


def test_pictures_that_use_their_bits_are_taken(tmp_path: Path) -> None:
    whole = _sixteen_bit(tmp_path / "whole.png", largest=65535)
    dark = _sixteen_bit(tmp_path / "dark.png", largest=4095)
    eight = tmp_path / "eight.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(eight)
    check_depth([whole, dark])
    check_depth([eight, dark])
