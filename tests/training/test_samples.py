import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.errors import DatasetError
from training.foreground import decide_kind
from training.samples import CATEGORIES, write_category

SIZE = 128
EVERY_DEFECT = [(name, defect) for name, category in CATEGORIES.items() for defect in category.defects]


def good(name: str, count: int, size: int = SIZE) -> npt.NDArray[np.uint8]:
    renders = [CATEGORIES[name].render(np.random.default_rng(seed), size) for seed in range(count)]
    assert not any(mask.any() for _, mask in renders)
    return np.stack([rgb for rgb, _ in renders])


@pytest.fixture(scope="module")
def usual() -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """For each category the mean good picture and how far good ones stray from it, both smoothed."""
    found = {}
    for name in CATEGORIES:
        smooth = np.stack([smoothed(rgb) for rgb in good(name, 24)])
        found[name] = smooth.mean(axis=0), smooth.std(axis=0) + 1
    return found


def smoothed(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 0.7), dtype=np.float32)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_is_an_object_and_a_texture_with_defects_of_several_types() -> None:
    assert {category.kind for category in CATEGORIES.values()} == {"object", "texture"}
    assert all(len(category.defects) >= 4 for category in CATEGORIES.values())
    assert all(name == category.name for name, category in CATEGORIES.items())


@pytest.mark.parametrize("name", CATEGORIES)
def test_the_kind_can_be_seen(name: str) -> None:
    assert decide_kind(list(good(name, 4, size=128))).kind == CATEGORIES[name].kind


@pytest.mark.parametrize("name", CATEGORIES)
def test_good_parts_differ_but_not_much(name: str) -> None:
    pictures = good(name, 6).astype(float)
    assert pictures.shape == (6, SIZE, SIZE, 3)
    apart = np.abs(pictures[:, None] - pictures[None]).mean(axis=(2, 3, 4))[~np.eye(6, dtype=bool)]
    assert apart.min() > 1.5
    assert apart.max() < 40
    levels = pictures.mean(axis=(1, 2, 3))
    assert np.ptp(levels) < 12
    assert 70 < levels.mean() < 190


@pytest.mark.parametrize(("name", "defect"), EVERY_DEFECT)
def test_a_defect_shows_where_its_mask_says(
    name: str, defect: str, usual: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
) -> None:
    mean, spread = usual[name]
    for seed in range(3):
        rgb, mask = CATEGORIES[name].render(np.random.default_rng(1000 + seed), SIZE, defect)
        assert 0.002 < mask.mean() < 0.06
        unusual = np.abs((smoothed(rgb) - mean) / spread).mean(axis=2)
        assert unusual[mask].mean() > 1.4 * unusual[~mask].mean()


@pytest.mark.parametrize(("name", "defect"), [(name, category.defects[0]) for name, category in CATEGORIES.items()])
def test_the_generator_alone_decides(name: str, defect: str) -> None:
    (one, mask), (same, same_mask), (other, _) = (
        CATEGORIES[name].render(np.random.default_rng(seed), SIZE, defect) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(mask, same_mask)
    assert (one != other).any()


def test_rust_is_red_in_the_file_too(tmp_path: Path) -> None:
    folder = write_category(tmp_path, "flange", train=0, test_good=0, test_defective=1, size=128)
    rgb = np.asarray(Image.open(folder / "test" / "rust" / "000.png"))
    mask = np.asarray(Image.open(folder / "ground_truth" / "rust" / "000_mask.png")) > 0
    red, _, blue = rgb[mask].mean(axis=0)
    assert red > blue + 20


def test_a_category_is_laid_out_like_mvtec(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = write_category(
        tmp_path, "cloth", train=3, test_good=2, test_defective=1, size=64, progress=lambda *step: told.append(step)
    )
    defects = CATEGORIES["cloth"].defects
    expected = {f"train/good/{index:03d}.png" for index in range(3)} | {"test/good/000.png", "test/good/001.png"}
    expected |= {f"test/{defect}/000.png" for defect in defects}
    expected |= {f"ground_truth/{defect}/000_mask.png" for defect in defects}
    assert set(files(folder)) == expected
    assert folder == tmp_path / "cloth"
    assert told == [(done, 3 + 2 + len(defects)) for done in range(1, 3 + 2 + len(defects) + 1)]
    with Image.open(folder / "train" / "good" / "000.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
    with Image.open(folder / "ground_truth" / "hole" / "000_mask.png") as mask:
        assert (mask.mode, mask.size) == ("L", (64, 64))
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_the_seed_decides_and_more_pictures_change_none(tmp_path: Path) -> None:
    few, more, again, other = (
        files(
            write_category(
                tmp_path / str(index), "flange", train=count, test_good=1, test_defective=0, size=64, seed=seed
            )
        )
        for index, (count, seed) in enumerate([(2, 0), (4, 0), (2, 0), (2, 1)])
    )
    assert few == again
    assert few.items() <= more.items()
    assert not set(few.values()) & set(other.values())
    assert len(set(more.values())) == len(more)


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    sizes = {"train": 2, "test_good": 1, "test_defective": 0, "size": 64}
    with pytest.raises(KeyboardInterrupt):
        write_category(tmp_path, "flange", **sizes, progress=stop)
    assert not (tmp_path / "flange").exists()
    assert len(files(write_category(tmp_path, "flange", **sizes))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["flange"]


def test_what_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "flange" / "mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(DatasetError, match=r"flange exists already"):
        write_category(tmp_path, "flange", train=1, test_good=0, test_defective=0, size=64)
    assert files(tmp_path) == {"flange/mine.png": b"mine"}


def test_what_cannot_be_rendered_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no sample category 'gear', only flange, cloth"):
        write_category(tmp_path, "gear")
    with pytest.raises(DatasetError, match=r"flange has no defect 'stain', only chip"):
        CATEGORIES["flange"].render(np.random.default_rng(0), SIZE, "stain")
    with pytest.raises(DatasetError, match="32 pixels"):
        CATEGORIES["flange"].render(np.random.default_rng(0), 32)


def test_another_process_draws_the_same_pictures(tmp_path: Path) -> None:
    """Neither the threads' order nor what memory held before is seen in them (MALLOC_PERTURB_: glibc alone has it)."""
    script = (
        "import sys; from pathlib import Path; from training.samples import write_category; "
        "[write_category(Path(sys.argv[1]), name, train=16, test_good=0, test_defective=1, size=128)"
        " for name in ('flange', 'cloth')]"
    )
    drawn = []
    for held in ("0", "85", "165"):
        environment = os.environ | {"MALLOC_PERTURB_": held}
        there = tmp_path / held
        subprocess.run(
            [sys.executable, "-c", script, there], check=True, cwd=Path(__file__).parents[2], env=environment
        )
        drawn.append([path.read_bytes() for path in sorted(there.rglob("*.png"))])
    assert len(drawn[0]) == 2 * 16 + 2 * sum(len(category.defects) for category in CATEGORIES.values())
    assert drawn[0] == drawn[1] == drawn[2]
