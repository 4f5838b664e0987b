from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.errors import DatasetError
from training import datasets
from training.datasets import check_depth, fingerprint, read_ignore_mask, read_image, read_mask, training_images

RED = np.full((6, 8, 3), (200, 10, 20), np.uint8)


def put(path: Path, pixels: np.ndarray = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mask(*, size: tuple[int, int] = (6, 8), value: int = 255) -> np.ndarray:
    pixels = np.zeros(size, np.uint8)
    pixels[1:3, 2:5] = value
    return pixels


@pytest.fixture
def screw(tmp_path: Path) -> Path:
    """A category in MVTec AD's layout below tmp_path."""
    folder = tmp_path / "screw"
    for name in ("0", "1", "2", "10"):
        put(folder / "train/good" / f"{name}.png")
    for name in ("000", "001"):
        put(folder / "test/good" / f"{name}.png")
        put(folder / "test/scratch" / f"{name}.png")
        put(folder / "ground_truth/scratch" / f"{name}_mask.png", mask())
    put(folder / "test/bent/000.png")
    return folder


def test_training_images_come_in_natural_order(screw: Path) -> None:
    (screw / "train/good/Thumbs.db").write_bytes(b"x")
    put(screw / "train/good/.hidden.png")
    (screw / "train/good/3.png").mkdir()
    put(screw / "train/good/1.JPG")
    put(screw / "train/bad/5.png")
    names = [path.name for path in training_images(screw.parent, "screw")]
    assert names == ["0.png", "1.JPG", "1.png", "2.png", "10.png"]
    assert [path.name for path in training_images(screw, None)] == names
    assert [path.name for path in training_images(screw, "screw")] == names


def test_a_plain_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("b.bmp", "a.tif", "c.webp"):
        put(tmp_path / "caps" / name)
    expected = [tmp_path / "caps" / name for name in ("a.tif", "b.bmp", "c.webp")]
    assert training_images(tmp_path, "caps") == expected
    assert training_images(tmp_path / "caps", None) == expected


def test_a_plain_folder_goes_by_whatever_category_it_is_given(tmp_path: Path) -> None:
    expected = [put(tmp_path / "my parts" / name) for name in ("a.png", "b.png")]
    assert training_images(tmp_path / "my parts", "bracket") == expected
    assert training_images(tmp_path / "my parts", "my parts") == expected
    inner = [put(tmp_path / "my parts" / "bracket" / name) for name in ("c.png", "d.png")]
    assert training_images(tmp_path / "my parts", "bracket") == inner


def test_what_macos_and_others_hide_is_no_picture(tmp_path: Path) -> None:
    expected = [put(tmp_path / name) for name in ("a.png", "b.png")]
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    assert training_images(tmp_path, None) == expected


def test_training_never_looks_at_test_pictures(screw: Path) -> None:
    before = training_images(screw.parent, "screw")
    for folder in ("test", "ground_truth"):
        for path in sorted((screw / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (screw / folder).rmdir()
        (screw / folder).write_bytes(b"not even a folder")
    assert training_images(screw.parent, "screw") == before


def test_a_missing_folder_says_what_is_there(screw: Path) -> None:
    (screw.parent / "nut").mkdir()
    with pytest.raises(DatasetError, match=r"no category 'bolt' in .*: there are nut, screw\."):
        training_images(screw.parent, "bolt")
    with pytest.raises(DatasetError, match="does not exist"):
        training_images(screw.parent / "nowhere", "screw")
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        training_images(screw / "train/good/0.png", None)
    (screw.parent / "nut" / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"nut holds no pictures \(only files with \.txt\)"):
        training_images(screw.parent / "nut", "bolt")


def test_an_empty_folder_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a/train/good").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"good holds no pictures\. Read are \.bmp, \.jpeg"):
        training_images(tmp_path, "a")
    (tmp_path / "a/train/good/0.heic").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"only files with \.heic"):
        training_images(tmp_path, "a")
    with pytest.raises(DatasetError, match="It holds folders: a; is one of them the category"):
        training_images(tmp_path, None)
    (tmp_path / "b/train").mkdir(parents=True)
    with pytest.raises(DatasetError, match="good does not exist"):
        training_images(tmp_path, "b")


def test_one_lone_image_is_too_few(tmp_path: Path) -> None:
    put(tmp_path / "caps/only.png")
    with pytest.raises(DatasetError, match=r"one picture, only\.png.*two at the very least"):
        training_images(tmp_path, "caps")


def test_test_samples_carry_their_truth(screw: Path) -> None:
    samples = datasets.test_samples(screw.parent, "screw")
    assert [(s.defect, s.path.name, s.mask and s.mask.name, s.is_good) for s in samples] == [
        ("good", "000.png", None, True),
        ("good", "001.png", None, True),
        ("bent", "000.png", None, False),
        ("scratch", "000.png", "000_mask.png", False),
        ("scratch", "001.png", "001_mask.png", False),
    ]
    assert all(sample.path.is_file() for sample in samples)
    assert samples[3].mask is not None
    assert samples[3].mask.parent.name == "scratch"


def test_good_pictures_alone_can_be_tested(tmp_path: Path) -> None:
    put(tmp_path / "caps/test/good/0.png")
    (sample,) = datasets.test_samples(tmp_path, "caps")
    assert sample == datasets.TestSample(tmp_path / "caps/test/good/0.png", "good", None)


def test_a_plain_folder_is_of_good_parts(tmp_path: Path) -> None:
    for name in ("10.png", "2.png"):
        put(tmp_path / "today" / name)
    expected = [datasets.TestSample(tmp_path / "today" / name, "good", None) for name in ("2.png", "10.png")]
    for data, category in ((tmp_path / "today", "caps"), (tmp_path / "today", None), (tmp_path, "today")):
        assert datasets.test_samples(data, category) == expected
    put(tmp_path / "today/train/good/0.png")
    with pytest.raises(DatasetError, match="no test pictures"):
        datasets.test_samples(tmp_path / "today", "caps")


def test_a_folder_without_any_picture_cannot_be_tested(tmp_path: Path) -> None:
    (tmp_path / "today").mkdir()
    with pytest.raises(DatasetError, match=r"holds no pictures\. .*pictures of good parts directly in a folder"):
        datasets.test_samples(tmp_path / "today", None)
    with pytest.raises(DatasetError, match=r"today holds no pictures\."):
        datasets.test_samples(tmp_path / "today", "flange")


def test_a_mask_without_an_image_is_named(screw: Path) -> None:
    (screw / "test/scratch/001.png").unlink()
    with pytest.raises(DatasetError, match=r"001_mask\.png is a mask without a picture: there is no .*scratch/001\."):
        datasets.test_samples(screw.parent, "screw")


def test_masks_of_an_unknown_defect_are_named(screw: Path) -> None:
    put(screw / "ground_truth/dent/000_mask.png", mask())
    with pytest.raises(DatasetError, match=r"ground_truth/dent holds masks, but there is no .*test/dent"):
        datasets.test_samples(screw.parent, "screw")


def test_an_image_that_alone_has_no_mask_is_named(screw: Path) -> None:
    (screw / "ground_truth/scratch/000_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"scratch/000\.png has no mask, though 1 of 2"):
        datasets.test_samples(screw.parent, "screw")


def test_a_missing_or_empty_test_folder_says_the_layout(tmp_path: Path) -> None:
    put(tmp_path / "caps/train/good/0.png")
    with pytest.raises(DatasetError, match=r"no test pictures\. Expected is test/good/\*"):
        datasets.test_samples(tmp_path, "caps")
    (tmp_path / "caps/test/good").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"holds no pictures\. Expected is"):
        datasets.test_samples(tmp_path, "caps")
    put(tmp_path / "caps/test/7.png")
    with pytest.raises(DatasetError, match=r"7\.png and 0 more lie directly"):
        datasets.test_samples(tmp_path, "caps")


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


def test_what_is_added_is_a_folder_of_pictures(screw: Path, tmp_path: Path) -> None:
    good = screw / "train/good"
    assert datasets.added_images(good) == training_images(screw, None)
    with pytest.raises(DatasetError, match=r"^There is no folder .*nosuch\.$"):
        datasets.added_images(tmp_path / "nosuch")
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        datasets.added_images(good / "0.png")
    with pytest.raises(DatasetError, match=rf"holds no pictures to add\. Give its good pictures: {good}\."):
        datasets.added_images(screw)


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
