"""JPEGs decoded at a fraction of their size: the same picture, refused for the same reasons, and its own size told."""

import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from models.errors import ImageError, ImageTooLarge
from models.images import decode, decode_reduced

Picture = NDArray[np.uint8]
Encode = Callable[..., bytes]
HEIGHT, WIDTH = 96, 160
_LIGHT = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def scene() -> Picture:
    """(96, 160, 3); no two channels or corners alike, and nothing so fine that a fraction could not show it."""
    y, x = np.mgrid[0 : 1 : complex(0, HEIGHT), 0 : 1 : complex(0, WIDTH)]
    waves = 25 * np.sin(12 * x + 9 * y)
    colours = np.stack([220 * x + 15, 200 * y + 20 + waves, 90 + 60 * x + 50 * y - waves], axis=-1)
    return colours.clip(0, 255).astype(np.uint8)


def averaged(picture: Picture, by: int) -> NDArray[np.float64]:
    """Each `by` x `by` pixels as one."""
    height, width = picture.shape[:2]
    return picture.reshape(height // by, by, width // by, by, 3).mean(axis=(1, 3))


def check_alike(reduced: Picture, whole: Picture) -> None:
    """Within what rounding and clipping make of averages; colours, stored at half the resolution, within more."""
    wanted = averaged(whole, whole.shape[0] // reduced.shape[0])
    np.testing.assert_allclose(reduced @ _LIGHT, wanted @ _LIGHT, atol=8)
    np.testing.assert_allclose(reduced, wanted, atol=16)


@pytest.mark.parametrize(
    ("least", "by"), [(1, 8), (12, 8), (13, 4), (24, 4), (25, 2), (48, 2), (49, 1), (96, 1), (1000, 1)]
)
def test_it_is_as_small_as_may_be(scene: Picture, encode: Encode, least: int, by: int) -> None:
    decoded = decode_reduced(encode(scene, "JPEG"), least=least)
    assert decoded.rgb.shape == (HEIGHT // by, WIDTH // by, 3)
    assert decoded.size == (HEIGHT, WIDTH)
    assert (decoded.rgb.dtype, decoded.rgb.flags.c_contiguous, decoded.rgb.flags.writeable) == (np.uint8, True, True)


@pytest.mark.parametrize(
    ("size", "by"), [((96, 160), 8), ((92, 160), 4), ((96, 154), 2), ((95, 160), 1), ((96, 159), 1), ((88, 156), 4)]
)
def test_only_by_what_divides_both_edges(scene: Picture, encode: Encode, size: tuple[int, int], by: int) -> None:
    data = encode(scene[: size[0], : size[1]], "JPEG", quality=95)
    decoded = decode_reduced(data, least=8)
    assert decoded.size == size == (decoded.rgb.shape[0] * by, decoded.rgb.shape[1] * by)
    check_alike(decoded.rgb, decode(data))


@pytest.mark.parametrize("by", [8, 4, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_blocks": 4}],
    ids=["", "4:4:4", "4:2:2", "progressive", "restarts"],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_shows_what_the_whole_picture_does(
    scene: Picture, encode: Encode, mode: str, options: dict[str, object], by: int
) -> None:
    data = encode(Image.fromarray(scene).convert(mode), "JPEG", quality=95, **options)
    reduced = decode_reduced(data, least=HEIGHT // by).rgb
    assert reduced.shape == (HEIGHT // by, WIDTH // by, 3)
    check_alike(reduced, decode(data))
    if mode == "L":
        assert (reduced == reduced[:, :, :1]).all()


@pytest.mark.parametrize("by", [8, 4, 2])
def test_of_noise_each_pixel_is_the_average_of_those_it_stands_for(encode: Encode, by: int) -> None:
    noise = np.random.default_rng(0).integers(64, 192, (HEIGHT, WIDTH, 1), dtype=np.uint8)  # nothing is clipped
    data = encode(np.repeat(noise, 3, axis=2), "JPEG", quality=95)
    difference = np.abs(decode_reduced(data, least=HEIGHT // by).rgb - averaged(decode(data), by))
    assert difference.mean() < 0.5
    assert difference.max() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright_and_so_is_its_size(scene: Picture, encode: Encode, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(scene, "JPEG", quality=95, exif=exif)
    whole, decoded = decode(data), decode_reduced(data, least=20)
    assert decoded.size == whole.shape[:2]
    check_alike(decoded.rgb, whole)


def test_whatever_is_no_jpeg_is_whole(file: bytes) -> None:
    decoded, whole = decode_reduced(file, least=3), decode(file)
    assert decoded.size == whole.shape[:2]
    if not file.startswith(b"\xff\xd8"):
        np.testing.assert_array_equal(decoded.rgb, whole)


def test_a_lossless_jpeg_is_whole(scene: Picture) -> None:
    grey = scene[:, :, 0]
    np.testing.assert_array_equal(decode_reduced(lossless_jpeg(grey), least=1).rgb[:, :, 2], grey)


def lossless_jpeg(grey: Picture) -> bytes:
    """Differences from the pixel on the left, each as four bits that say how many follow, and those (process 14)."""
    before = np.hstack([np.vstack([[[128]], grey[:-1, :1]]), grey[:, :-1]])
    bits = []
    for difference in (grey.astype(int) - before).ravel().tolist():
        length = abs(difference).bit_length()
        value = difference if difference > 0 else difference + (1 << length) - 1
        bits.append(f"{length:04b}" + (f"{value:0{length}b}" if length else ""))
    scan = "".join(bits)
    scan += "1" * (-len(scan) % 8)
    coded = int(scan, 2).to_bytes(len(scan) // 8).replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHBBBB", 8, *grey.shape, 1, 1, 0x11, 0)
    table = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])  # nine codes of four bits
    segments = (0xC3, frame), (0xC4, table), (0xDA, bytes([1, 1, 0, 1, 0, 0]))
    written = b"".join(struct.pack(">BBH", 0xFF, marker, len(each) + 2) + each for marker, each in segments)
    return b"\xff\xd8" + written + coded + b"\xff\xd9"


def test_the_limit_is_on_the_picture_s_own_pixels(scene: Picture, encode: Encode) -> None:
    data = encode(scene, "JPEG")
    assert decode_reduced(data, least=1, max_pixels=HEIGHT * WIDTH).rgb.shape == (12, 20, 3)
    with pytest.raises(ImageTooLarge, match="160x96"):
        decode_reduced(data, least=1, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_what_is_damaged_is_refused_as_the_whole_picture_is(
    scene: Picture, encode: Encode, options: dict[str, object]
) -> None:
    data, rng = encode(scene, "JPEG", **options), random.Random(0)
    outcomes = set()
    for _ in range(300):
        damaged = changed(data, rng)
        whole = outcome(lambda: decode(damaged, max_pixels=1_000_000).shape[:2])  # noqa: B023
        for least in (12, 24, 48):
            assert outcome(lambda: decode_reduced(damaged, least=least, max_pixels=1_000_000).size) == whole  # noqa: B023
        outcomes.add(whole)
    assert {(HEIGHT, WIDTH), "CorruptImage"} < outcomes


def changed(data: bytes, rng: random.Random) -> bytes:
    """Some bytes other ones, in the header or anywhere; or a piece missing, before the end marker."""
    damaged = bytearray(data)
    if rng.random() < 0.3:
        start = rng.randrange(2, len(data) - 2)
        del damaged[start : rng.randrange(start, len(data) - 2)]
        return bytes(damaged)
    end = rng.choice([min(650, len(data)), len(data)])
    for _ in range(rng.randint(1, 5)):
        damaged[rng.randrange(end)] = rng.randrange(256)
    return bytes(damaged)


def outcome(read: Callable[[], tuple[int, ...]]) -> object:
    try:
        return read()
    except ImageError as refusal:
        return type(refusal).__name__
