"""What whole files decode to, and which are refused for what they are."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from models.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from models.images import FORMATS, decode, media_type, significant_bits

Encode = Callable[..., bytes]


def test_lossless_files_decode_to_the_very_pixels(lossless: tuple[bytes, np.ndarray]) -> None:
    data, wanted = lossless
    decoded = decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, wanted)


def test_lossy_files_keep_channels_and_places(rgb: np.ndarray, lossy: bytes) -> None:
    difference = np.abs(decode(lossy).astype(int) - rgb)
    assert difference.mean() < 4


def test_twelve_bit_tiff_is_scaled_by_its_own_depth(grey: np.ndarray, thrice: np.ndarray) -> None:
    height, width = grey.shape
    packed = np.unpackbits(
        (grey.astype(np.uint16) << 4).astype(">u2").view(np.uint8).reshape(height, width, 2), axis=-1
    )
    rows = np.packbits(packed[:, :, 4:].reshape(height, -1), axis=-1)
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, height)]
    entries.append((279, rows.size))
    fields = b"".join(np.array([tag, 4], "<u2").tobytes() + np.array([1, v], "<u4").tobytes() for tag, v in entries)
    head = b"II\x2a\x00\x08\x00\x00\x00" + np.uint16(len(entries)).tobytes() + fields + b"\0\0\0\0"
    data = head.ljust(200, b"\0") + rows.tobytes()
    np.testing.assert_array_equal(decode(data), thrice)
    assert significant_bits(data) is None


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: np.rot90(seen, -1),
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),
    8: lambda seen: np.rot90(seen, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    "options", [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})]
)
def test_pictures_are_turned_upright_once(
    rgb: np.ndarray, encode: Encode, orientation: int, options: tuple[str, dict[str, object]]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    name, more = options
    np.testing.assert_array_equal(decode(encode(rgb, name, exif=exif, **more)), UPRIGHT[orientation](rgb))


def test_jpeg_and_sixteen_bit_pictures_are_turned_too(
    rgb: np.ndarray, grey: np.ndarray, thrice: np.ndarray, encode: Encode
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    np.testing.assert_array_equal(decode(encode(rgb, "JPEG", exif=exif)), np.rot90(decode(encode(rgb, "JPEG")), -1))
    for name in ("PNG", "TIFF"):
        wide = encode(grey.astype(np.uint16) * 257, name, exif=exif)
        np.testing.assert_array_equal(decode(wide), np.rot90(thrice, -1))


def test_media_type_comes_from_the_bytes(rgb: np.ndarray, encode: Encode, files: list[bytes]) -> None:
    files = {"JPEG": "jpeg", "PNG": "png", "BMP": "bmp", "TIFF": "tiff", "WEBP": "webp"}
    assert set(files) == set(FORMATS)
    for name, subtype in files.items():
        assert media_type(encode(rgb, name)) == f"image/{subtype}"


def test_other_formats_are_refused_by_name(rgb: np.ndarray, encode: Encode) -> None:
    for data in (encode(rgb, "GIF"), encode(rgb, "ICO"), b"%PDF-1.7", b"x", b"RIFF....WAVE"):
        for function in (decode, media_type):
            with pytest.raises(UnsupportedImage, match="none of JPEG, PNG, BMP, TIFF, WEBP"):
                function(data)


def test_no_bytes_at_all() -> None:
    with pytest.raises(CorruptImage, match="empty"):
        decode(b"")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_pixels_without_a_known_range_are_refused(grey: np.ndarray, tiff: Encode, dtype: type) -> None:
    with pytest.raises(UnsupportedImage, match="8 or 16 unsigned bits"):
        decode(tiff(grey.astype(dtype)))


def test_sixteen_bit_planes_that_pillow_would_scramble_are_refused(rgb: np.ndarray, tiff: Encode) -> None:
    with pytest.raises(UnsupportedImage, match="planes of 16 bits"):
        decode(tiff((rgb.astype(np.uint16) * 257).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(rgb: np.ndarray, encode: Encode, name: str) -> None:
    second = Image.fromarray(255 - rgb)
    with pytest.raises(UnsupportedImage, match="several frames or pages"):
        decode(encode(rgb, name, save_all=True, append_images=[second]))


def test_a_phones_previews_are_left_alone(rgb: np.ndarray, encode: Encode) -> None:
    alone = encode(rgb, "JPEG")
    with_preview = encode(rgb, "MPO", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    assert len(with_preview) > 1.5 * len(alone)
    np.testing.assert_array_equal(decode(with_preview), decode(alone))


def test_the_pixel_limit_is_kept_and_read_from_the_header(rgb: np.ndarray, grey: np.ndarray, encode: Encode) -> None:
    for name in FORMATS:
        data = encode(rgb, name)
        assert decode(data, max_pixels=grey.size).shape == rgb.shape
        with pytest.raises(ImageTooLarge, match="960 pixels; at most 959"):
            decode(data, max_pixels=grey.size - 1)
    header_only = encode(rgb, "PNG")[:60]
    with pytest.raises(ImageTooLarge):
        decode(header_only, max_pixels=100)


def test_large_pictures_pass_without_pillows_own_limit(encode: Encode) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    large = np.zeros((9_500, 9_500), np.uint8)  # more than Pillow warns of, fewer than our limit
    assert large.size > limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(large, "PNG", compress_level=1)).shape == (9_500, 9_500, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_claimed_bomb_is_refused(rgb: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(rgb, "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageTooLarge):
        decode(bytes(data))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    webp = bytearray(encode(rgb, "WEBP", exif=exif))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\x3f\x00" * 2
    with pytest.raises(ImageError):
        decode(bytes(webp))


def test_no_width(rgb: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(rgb, "BMP"))
    data[18:22] = bytes(4)
    with pytest.raises(CorruptImage):
        decode(bytes(data))


def test_threads_do_not_disturb_each_other(files: list[bytes]) -> None:
    wanted = [decode(data) for data in files]
    globals_before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    with ThreadPoolExecutor(8) as pool:
        for found, one in zip(pool.map(decode, files * 8), wanted * 8, strict=True):
            np.testing.assert_array_equal(found, one)
    assert globals_before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
