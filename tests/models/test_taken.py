"""From a file to the network's tile: at what size JPEGs are decoded, and that nobody mistakes it for the picture's."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.alignment import AlignmentConfig
from models.errors import CorruptImage, ImageTooLarge, ImageTooSmall
from models.images import decode, decode_reduced
from models.preprocess import Preprocess, PreprocessConfig
from models.taken import SMALLEST, take

SHIFT = AlignmentConfig(name="shift")


def scene(height: int, width: int) -> NDArray[np.uint8]:
    """Shapes with edges, and fine grain."""
    y, x = np.mgrid[:height, :width]
    shapes = 90 + 60 * ((x // 37 + y // 23) % 2) + 40 * np.sin(x / 50)
    grain = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return (shapes[:, :, None] + grain).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], name: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, quality=90)
    return file.getvalue()


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_the_size_is_the_picture_s_own(reduced: bool, name: str) -> None:
    preprocess = Preprocess(PreprocessConfig(image_size=32, reduced_jpeg=reduced))
    taken = take(encoded(scene(512, 768), name), preprocess)
    assert taken.size == (512, 768)
    assert (taken.tile.shape, taken.tile.dtype) == ((3, 32, 32), torch.uint8)


@pytest.mark.parametrize(
    ("settings", "by"),
    [
        ({"image_size": 32}, 8),
        ({"image_size": 64}, 4),
        ({"image_size": 96}, 2),
        ({"image_size": 32, "tiles": 2}, 4),
        ({"image_size": 32, "align": SHIFT}, 4),  # taken twice as large
        ({"image_size": 64, "tiles": 2, "align": SHIFT}, 1),
        ({"image_size": 32, "resize": 65}, 2),  # what is squashed, margin and all
    ],
)
def test_twice_as_large_as_the_whole_picture_is_squashed_to(settings: dict[str, object], by: int) -> None:
    data = encoded(scene(512, 768), "JPEG")
    preprocess = Preprocess(PreprocessConfig.model_validate({**settings, "reduced_jpeg": True}))
    reduced = decode_reduced(data, least=512 // by).rgb
    assert reduced.shape[:2] == (512 // by, 768 // by)
    assert torch.equal(take(data, preprocess).tile, preprocess.resize(reduced))


def test_without_being_asked_it_is_whole() -> None:
    data, preprocess = encoded(scene(512, 768), "JPEG"), Preprocess(PreprocessConfig(image_size=32))
    assert torch.equal(take(data, preprocess).tile, preprocess.resize(decode(data)))


def test_the_tile_is_nearly_the_same() -> None:
    data = encoded(scene(896, 896), "JPEG")
    whole, reduced = (take(data, Preprocess(PreprocessConfig(reduced_jpeg=how))).tile.int() for how in (False, True))
    difference = (whole - reduced).abs().float()
    assert 0 < difference.mean() < 2
    assert difference.max() < 40  # at edges, which the one blurs a little less


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_what_is_too_small_to_show_a_part_is_refused(reduced: bool, name: str) -> None:
    preprocess = Preprocess(PreprocessConfig(reduced_jpeg=reduced))
    assert take(encoded(scene(SMALLEST, SMALLEST), name), preprocess).size == (SMALLEST, SMALLEST)
    for height, width in ((1, 1), (SMALLEST - 1, 640), (640, SMALLEST - 1)):
        with pytest.raises(ImageTooSmall, match=f"is {width}x{height} pixels; at least 32x32"):
            take(encoded(scene(height, width), name), preprocess)


@pytest.mark.parametrize("reduced", [False, True])
def test_refusals_are_the_decoder_s(reduced: bool) -> None:
    data, preprocess = encoded(scene(256, 256), "JPEG"), Preprocess(PreprocessConfig(reduced_jpeg=reduced))
    with pytest.raises(ImageTooLarge, match="256x256"):
        take(data, preprocess, max_pixels=65_535)
    with pytest.raises(CorruptImage):
        take(data[:-99], preprocess)
