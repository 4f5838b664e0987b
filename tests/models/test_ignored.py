"""An ignore mask: what counts as painted, and which positions of a map that makes."""

import io
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.artifact import Artifact
from models.errors import CorruptImage, DatasetError, UnsupportedImage
from models.ignored import kept_positions, painted
from models.images import decode
from models.preprocess import PreprocessConfig
from models.smoothing import Smoothing

WHOLE = PreprocessConfig(image_size=64)


def file(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def paint(*, colour: tuple[int, ...], mode: str = "RGB", ground: tuple[int, ...] = (0, 0, 0)) -> Image.Image:
    """8x6 pixels with paint at columns 2 to 4 of rows 1 and 2."""
    picture = Image.new(mode, (8, 6), ground)
    picture.paste(colour, (2, 1, 5, 3))
    return picture


def wanted() -> NDArray[np.bool_]:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:3, 2:5] = True
    return mask


@pytest.mark.parametrize(
    "picture",
    [
        paint(colour=(255, 255, 255)),
        paint(colour=(0, 0, 1)),
        paint(colour=(255, 0, 0)).convert("P"),
        paint(colour=(200, 200, 200)).convert("L"),
        paint(colour=(0, 0, 0, 255), mode="RGBA", ground=(255, 255, 255, 0)),
        paint(colour=(9, 9, 9, 1), mode="RGBA", ground=(9, 9, 9, 0)),
        paint(colour=(255, 0, 0, 255), mode="RGBA", ground=(0, 0, 0, 255)),  # opaque: the colour tells
    ],
    ids=["white", "nearly black", "palette", "grey", "black on nothing", "thin paint on nothing", "opaque alpha"],
)
def test_painted_is_what_is_not_black_or_not_transparent(picture: Image.Image) -> None:
    np.testing.assert_array_equal(painted(file(picture)), wanted())


def test_a_transparent_palette_entry_is_not_painted() -> None:
    picture = Image.new("P", (8, 6), 0)
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.paste(1, (2, 1, 5, 3))  # black paint on transparent white
    np.testing.assert_array_equal(painted(file(picture, transparency=0)), wanted())


def test_a_mask_is_turned_as_its_pictures_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for ground in ((0, 0, 0, 0), (0, 0, 0, 255)):
        data = file(paint(colour=(255, 0, 0, 255), mode="RGBA", ground=ground), exif=exif)
        np.testing.assert_array_equal(painted(data), np.rot90(wanted(), -1))


def test_only_whole_pngs_are_taken() -> None:
    with pytest.raises(UnsupportedImage, match="must be a PNG, and this is image/jpeg"):
        painted(file(paint(colour=(255, 255, 255)), "JPEG"))
    with pytest.raises(CorruptImage):
        painted(file(paint(colour=(255, 255, 255)))[:60])


def test_a_photograph_is_no_mask() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(UnsupportedImage, match=r"drawn, not taken: this PNG has 1,\d\d\d colours"):
        painted(file(Image.fromarray(pixels)))
    soft = np.arange(1600).reshape(40, 40) % 256
    assert painted(file(Image.fromarray(soft.astype(np.uint8)))).any()  # a soft brush


def test_a_position_is_ignored_from_half_of_its_cell_on() -> None:
    ignored = np.zeros((160, 320), np.bool_)  # cells of 20 rows and 10 columns
    ignored[0:10, 0:20] = True
    ignored[20:29, 0:20] = True
    ignored[40:60, 310:315] = True
    keep = kept_positions(ignored, WHOLE, (8, 32))
    assert keep.dtype == torch.bool
    assert (~keep).nonzero().tolist() == [[0, 0], [0, 1], [2, 31]]


def test_cells_that_are_no_whole_pixels_share_them() -> None:
    ignored = np.zeros((3, 3), np.bool_)
    ignored[:, :2] = True  # of cells 1.5 wide: all of the first, a third of the second
    assert kept_positions(ignored, WHOLE, (2, 2)).tolist() == [[False, True], [False, True]]


def test_the_size_of_the_mask_does_not_matter() -> None:
    for scale in (1, 3):
        ignored = np.kron(np.eye(4, dtype=np.bool_), np.ones((4 * scale, 4 * scale), np.bool_))
        assert torch.equal(
            kept_positions(ignored, WHOLE, (16, 16)), torch.eye(4).repeat_interleave(4, 0).repeat_interleave(4, 1) == 0
        )


def test_a_centre_crop_sees_the_middle_of_the_mask() -> None:
    ignored = np.zeros((80, 80), np.bool_)
    ignored[8:40, 8:40] = True  # the upper left quarter of the crop
    keep = kept_positions(ignored, PreprocessConfig(image_size=64, resize=80), (4, 4))
    assert keep.tolist() == [[False, False, True, True]] * 2 + [[True] * 4] * 2


def test_masks_that_leave_nothing_or_do_nothing_are_refused() -> None:
    ignored = np.ones((80, 80), np.bool_)
    ignored[0, 0] = False
    with pytest.raises(DatasetError, match="nothing is left to inspect"):
        kept_positions(ignored, WHOLE, (8, 8))
    with pytest.raises(DatasetError, match="would do nothing"):
        kept_positions(~ignored, WHOLE, (8, 8))


def test_a_defect_that_is_ignored_does_not_count(dense_artifact: Artifact, bad: Callable[[int], bytes]) -> None:
    ignored = np.zeros((48, 64), np.bool_)
    ignored[12:, 16:] = True  # the defect is in the lower right quarter, and its neighbourhood has seen it too
    config = dense_artifact.manifest.detector
    detector = deepcopy(dense_artifact.detector)
    detector.smoothing = Smoothing(config.map_smoothing, (16, 16))
    tile = detector.preprocess.resize(decode(bad(1))).unsqueeze(0)
    with torch.inference_mode():
        everywhere = detector(tile)
        assert torch.equal(everywhere.map, dense_artifact.detector(tile).map)
        assert detector.smoothing.keep is not None
        detector.smoothing.keep.copy_(kept_positions(ignored, config.preprocess, (16, 16)))
        elsewhere = detector(tile)
    assert float(everywhere.score) > dense_artifact.manifest.threshold.value > float(elsewhere.score) > 0
    assert not elsewhere.map[0, 4:, 4:].any()
