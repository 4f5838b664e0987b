from pathlib import Path

import pytest

from models.errors import DatasetError
from training import datasets
from training.datasets import training_images


def put(path: Path) -> Path:
    """A file that is a picture by its name: none is opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def screw(tmp_path: Path) -> Path:
    """A category in MVTec AD's layout below tmp_path."""
    folder = tmp_path / "screw"
    for name in ("0", "1", "2", "10"):
        put(folder / "train/good" / f"{name}.png")
    for name in ("000", "001"):
        put(folder / "test/good" / f"{name}.png")
        put(folder / "test/scratch" / f"{name}.png")
        put(folder / "ground_truth/scratch" / f"{name}_mask.png")
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


def test_too_few_pictures_to_learn_from_are_refused(tmp_path: Path) -> None:
    paths = [put(tmp_path / f"{n}.png") for n in range(8)]
    datasets.check_enough(paths)
    with pytest.raises(
        DatasetError, match=r"^7 different pictures .* too few .*/0\.png\): 8 are the least.* lets defects pass"
    ):
        datasets.check_enough(paths[:7])


def test_few_pictures_are_warned_of(tmp_path: Path) -> None:
    assert "49 good images are few: " in str(datasets.too_few(49))
    assert datasets.too_few(50) is None


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
    put(screw / "ground_truth/dent/000_mask.png")
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


def test_what_is_added_is_a_folder_of_pictures(screw: Path, tmp_path: Path) -> None:
    good = screw / "train/good"
    assert datasets.added_images(good) == training_images(screw, None)
    with pytest.raises(DatasetError, match=r"^There is no folder .*nosuch\.$"):
        datasets.added_images(tmp_path / "nosuch")
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        datasets.added_images(good / "0.png")
    with pytest.raises(DatasetError, match=rf"holds no pictures to add\. Give its good pictures: {good}\."):
        datasets.added_images(screw)
