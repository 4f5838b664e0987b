import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.errors import DatasetError
from training.foreground import decide_kind, describe_foreground, foreground_mask

SHARED = Path(os.environ.get("JIGSIGHT_SHARED", Path(__file__).parents[3] / "shared")) / "data"
DARK, LIGHT = (40, 45, 50), (205, 200, 195)


def disc(radius: int = 30, centre: tuple[int, int] = (64, 64), size: int = 128) -> npt.NDArray[np.bool_]:
    row, column = np.mgrid[:size, :size]
    return np.asarray(np.hypot(column - centre[0], row - centre[1]) <= radius)


def picture(
    mask: npt.NDArray[np.bool_], part: tuple[int, ...] = DARK, background: tuple[int, ...] = LIGHT, seed: int = 0
) -> npt.NDArray[np.uint8]:
    clean = np.where(mask[:, :, None], part, background)
    noisy = clean + np.random.default_rng(seed).normal(0, 4, clean.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def grain(seed: int, size: int = 128) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 60, (size, size, 3))
    return np.clip(128 + 3 * cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("part", "background"),
    [(DARK, LIGHT), (LIGHT, DARK), ((150, 90, 90), (80, 122, 90))],
    ids=["dark on light", "light on dark", "equally bright"],
)
def test_the_part_is_found_whatever_its_polarity(part: tuple[int, ...], background: tuple[int, ...]) -> None:
    mask = disc()
    assert overlap(foreground_mask(picture(mask, part, background)), mask) > 0.9


def test_two_parts_stay_and_dust_goes() -> None:
    parts = disc(22, (36, 64)) | disc(16, (96, 64))
    found = foreground_mask(picture(parts | disc(3, (64, 14))))
    assert overlap(found, parts) > 0.9
    assert not found[10:18, 60:68].any()


def test_a_narrow_gap_in_the_part_is_closed() -> None:
    mask = disc()
    gap = mask.copy()
    gap[:, 63:65] = False
    assert foreground_mask(picture(gap))[40:88, 63:65].all()


def test_an_even_surface_has_no_foreground() -> None:
    even = np.full((64, 96, 3), 120, dtype=np.uint8)
    assert not foreground_mask(even).any()
    described = describe_foreground(even)
    assert (described.share, described.touches_border) == (0.0, False)


def test_the_description_tells_where_the_part_lies() -> None:
    clear = describe_foreground(picture(disc()))
    assert not clear.touches_border
    assert clear.share == pytest.approx(disc().mean(), rel=0.1)
    assert clear.step > 0.8
    assert describe_foreground(picture(disc(30, (10, 64)))).touches_border


def test_a_part_clear_of_the_border_is_an_object() -> None:
    decision = decide_kind([picture(disc(28, (60 + seed, 64)), seed=seed) for seed in range(5)])
    assert decision.kind == "object"
    assert "clear of the border" in decision.reason
    assert "5 pictures" in decision.reason


def test_grain_up_to_the_border_is_a_texture() -> None:
    decision = decide_kind([grain(seed) for seed in range(5)])
    assert decision.kind == "texture"
    assert "runs over the border" in decision.reason


def test_an_even_surface_is_a_texture() -> None:
    assert decide_kind([np.full((64, 64, 3), 90, dtype=np.uint8)]).kind == "texture"


def test_uneven_light_is_no_part() -> None:
    """An even surface that is a good deal brighter in the middle: something stands out, without a contour."""
    row, column = np.mgrid[-1:1:128j, -1:1:128j]
    light = 60 + 120 * np.exp(-2 * (row**2 + column**2))
    decision = decide_kind([np.repeat(light[:, :, None], 3, axis=2).astype(np.uint8)])
    assert decision.kind == "texture"
    assert "no contour" in decision.reason


def test_a_few_odd_pictures_do_not_change_the_kind() -> None:
    good = [picture(disc(), seed=seed) for seed in range(7)]
    assert decide_kind([*good, grain(1), grain(2)]).kind == "object"


def test_nothing_to_decide_by_is_an_error() -> None:
    with pytest.raises(DatasetError, match="at least one good picture"):
        decide_kind([])


def _real(pattern: str) -> list[npt.NDArray[np.uint8]]:
    paths = sorted(SHARED.glob(pattern))[:10]
    if not paths:
        pytest.skip(f"no real pictures: {SHARED / pattern} is absent")
    return [cv2.resize(cv2.imread(str(path))[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA) for path in paths]


def test_real_screws_are_an_object() -> None:
    assert decide_kind(_real("mvtec/screw/train/good/*.png")).kind == "object"


@pytest.mark.parametrize("name", ["banded", "blotchy", "cracked", "crosshatched", "chequered"])
def test_real_textures_are_textures(name: str) -> None:
    assert decide_kind(_real(f"dtd/images/{name}/*.jpg")).kind == "texture"
