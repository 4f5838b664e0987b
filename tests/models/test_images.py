import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from models.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from models.images import FORMATS, decode, media_type, significant_bits

HEIGHT, WIDTH = 24, 40


def picture() -> np.ndarray:
    """No two channels, rows, columns or corners alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 6, y * 10, (x + 2 * y) * 2], axis=-1).astype(np.uint8)


RGB = picture()
GREY = RGB[:, :, 0].copy()
THRICE = np.repeat(GREY[:, :, None], 3, axis=2)


def encode(pixels: np.ndarray | Image.Image, name: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png16(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[:, :, [2, 1, 0, *range(3, rgb.shape[2])]])[1].tobytes()


WIDE = RGB.astype(np.uint16) * 257
LOSSLESS = {
    "png": (encode(RGB, "PNG"), RGB),
    "png grey": (encode(GREY, "PNG"), THRICE),
    "png grey with alpha": (encode(np.dstack([GREY, RGB[:, :, 1]]), "PNG"), THRICE),
    "png rgba": (encode(np.dstack([RGB, GREY]), "PNG"), RGB),
    "png 1-bit": (encode(Image.fromarray(GREY > 99), "PNG"), np.where(THRICE > 99, 255, 0)),
    "png palette": (encode(Image.fromarray(GREY).convert("P"), "PNG"), THRICE),
    "png palette with alpha": (encode(Image.fromarray(GREY).convert("P"), "PNG", transparency=b"\0" * 9), THRICE),
    "png with a transparent colour": (encode(RGB, "PNG", transparency=tuple(RGB[3, 3].tolist())), RGB),
    "png 16-bit grey": (encode(GREY.astype(np.uint16) * 257, "PNG"), THRICE),
    "png 16-bit grey, shifted": (encode(GREY.astype(np.uint16) << 8, "PNG"), THRICE),
    "png 16-bit rgb": (png16(WIDE), RGB),
    "png 16-bit rgba": (png16(np.dstack([WIDE, WIDE[:, :, 0]])), RGB),
    "bmp": (encode(RGB, "BMP"), RGB),
    "bmp palette": (encode(Image.fromarray(GREY).convert("P"), "BMP"), THRICE),
    "webp": (encode(RGB, "WEBP", lossless=True), RGB),
    "tiff": (encode(RGB, "TIFF"), RGB),
    "tiff lzw": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "tiff cmyk": (encode(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "tiff tiled": (tiff(RGB, photometric="rgb", tile=(16, 16)), RGB),
    "tiff planes": (tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
    "tiff big": (tiff(RGB, photometric="rgb", bigtiff=True), RGB),
    "tiff white is zero": (tiff(255 - GREY, photometric="miniswhite"), THRICE),
    "tiff 16-bit grey": (tiff(GREY.astype(np.uint16) * 257, photometric="minisblack"), THRICE),
    "tiff 16-bit grey, big end first": (tiff(GREY.astype(">u2") << 8, byteorder=">"), THRICE),
    "tiff 16-bit grey, deflated": (tiff(GREY.astype(np.uint16) << 8, compression="zlib"), THRICE),
    "tiff 16-bit, white is zero": (tiff(65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite"), THRICE),
    "tiff 16-bit rgb": (tiff(WIDE, photometric="rgb"), RGB),
    "tiff 16-bit rgb, big end first": (tiff(WIDE.astype(">u2"), photometric="rgb", byteorder=">"), RGB),
    "tiff 16-bit rgb, deflated": (tiff(WIDE, photometric="rgb", compression="zlib"), RGB),
}

LOSSY = {
    "jpeg": encode(RGB, "JPEG", quality=95),
    "jpeg progressive": encode(RGB, "JPEG", quality=95, progressive=True),
    "jpeg cmyk": encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95),
    "webp lossy": encode(RGB, "WEBP", quality=95),
    "tiff jpeg": encode(RGB, "TIFF", compression="jpeg", quality=95),
}
EVERY = [data for data, _ in LOSSLESS.values()] + list(LOSSY.values())


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_decode_to_the_very_pixels(name: str) -> None:
    data, wanted = LOSSLESS[name]
    decoded = decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, wanted)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_keep_channels_and_places(name: str) -> None:
    difference = np.abs(decode(LOSSY[name]).astype(int) - RGB)
    assert difference.mean() < 4


def test_twelve_bit_tiff_is_scaled_by_its_own_depth() -> None:
    packed = np.unpackbits(
        (GREY.astype(np.uint16) << 4).astype(">u2").view(np.uint8).reshape(HEIGHT, WIDTH, 2), axis=-1
    )
    rows = np.packbits(packed[:, :, 4:].reshape(HEIGHT, -1), axis=-1)
    entries = [(256, WIDTH), (257, HEIGHT), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1), (278, HEIGHT)]
    entries.append((279, rows.size))
    fields = b"".join(np.array([tag, 4], "<u2").tobytes() + np.array([1, v], "<u4").tobytes() for tag, v in entries)
    head = b"II\x2a\x00\x08\x00\x00\x00" + np.uint16(len(entries)).tobytes() + fields + b"\0\0\0\0"
    data = head.ljust(200, b"\0") + rows.tobytes()
    np.testing.assert_array_equal(decode(data), THRICE)
    assert significant_bits(data) is None


UPRIGHT = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, -1),
    7: RGB[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(RGB, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    "options", [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})]
)
def test_pictures_are_turned_upright_once(orientation: int, options: tuple[str, dict[str, object]]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    name, more = options
    np.testing.assert_array_equal(decode(encode(RGB, name, exif=exif, **more)), UPRIGHT[orientation])


def test_jpeg_and_sixteen_bit_pictures_are_turned_too() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    np.testing.assert_array_equal(decode(encode(RGB, "JPEG", exif=exif)), np.rot90(decode(encode(RGB, "JPEG")), -1))
    for name in ("PNG", "TIFF"):
        wide = encode(GREY.astype(np.uint16) * 257, name, exif=exif)
        np.testing.assert_array_equal(decode(wide), np.rot90(THRICE, -1))


def test_media_type_comes_from_the_bytes() -> None:
    files = {"JPEG": "jpeg", "PNG": "png", "BMP": "bmp", "TIFF": "tiff", "WEBP": "webp"}
    assert set(files) == set(FORMATS)
    for name, subtype in files.items():
        assert media_type(encode(RGB, name)) == f"image/{subtype}"


@pytest.mark.parametrize("data", [encode(RGB, "GIF"), encode(RGB, "ICO"), b"%PDF-1.7", b"x", b"RIFF....WAVE"])
def test_other_formats_are_refused_by_name(data: bytes) -> None:
    for function in (decode, media_type):
        with pytest.raises(UnsupportedImage, match="none of JPEG, PNG, BMP, TIFF, WEBP"):
            function(data)


def test_no_bytes_at_all() -> None:
    with pytest.raises(CorruptImage, match="empty"):
        decode(b"")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_pixels_without_a_known_range_are_refused(dtype: type) -> None:
    with pytest.raises(UnsupportedImage, match="8 or 16 unsigned bits"):
        decode(tiff(GREY.astype(dtype)))


def test_sixteen_bit_planes_that_pillow_would_scramble_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="planes of 16 bits"):
        decode(tiff(WIDE.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(name: str) -> None:
    second = Image.fromarray(255 - RGB)
    with pytest.raises(UnsupportedImage, match="several frames or pages"):
        decode(encode(RGB, name, save_all=True, append_images=[second]))


def test_a_phones_previews_are_left_alone() -> None:
    alone = encode(RGB, "JPEG")
    with_preview = encode(RGB, "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    assert len(with_preview) > 1.5 * len(alone)
    np.testing.assert_array_equal(decode(with_preview), decode(alone))


def test_the_pixel_limit_is_kept_and_read_from_the_header() -> None:
    for name in FORMATS:
        data = encode(RGB, name)
        assert decode(data, max_pixels=WIDTH * HEIGHT).shape == RGB.shape
        with pytest.raises(ImageTooLarge, match="960 pixels; at most 959"):
            decode(data, max_pixels=WIDTH * HEIGHT - 1)
    header_only = encode(RGB, "PNG")[:60]
    with pytest.raises(ImageTooLarge):
        decode(header_only, max_pixels=100)


def test_large_pictures_pass_without_pillows_own_limit() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    large = np.zeros((9_500, 9_500), np.uint8)  # more than Pillow warns of, fewer than our limit
    assert large.size > limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(large, "PNG", compress_level=1)).shape == (9_500, 9_500, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_claimed_bomb_is_refused() -> None:
    data = bytearray(encode(RGB, "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageTooLarge):
        decode(bytes(data))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    webp = bytearray(encode(RGB, "WEBP", exif=exif))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\x3f\x00" * 2
    with pytest.raises(ImageError):
        decode(bytes(webp))


def test_no_width() -> None:
    data = bytearray(encode(RGB, "BMP"))
    data[18:22] = bytes(4)
    with pytest.raises(CorruptImage):
        decode(bytes(data))


@pytest.mark.parametrize("data", EVERY, ids=[*LOSSLESS, *LOSSY])
def test_a_file_that_was_cut_off_is_never_half_judged(data: bytes) -> None:
    whole = decode(data)
    for length in range(len(data)):
        try:
            part = decode(data[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(part, whole)  # all that was missing is what comes after the pixels


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_filled_up_with_zeros_is_refused(progressive: bool) -> None:
    thumbnail = encode(RGB[::4, ::4], "JPEG")
    data = encode(RGB, "JPEG", progressive=progressive, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail)
    kept = len(data) * 3 // 4
    with pytest.raises(CorruptImage, match="end marker"):
        decode(data[:kept] + bytes(len(data) - kept))


def test_a_jpeg_with_a_film_behind_it_is_read() -> None:
    data = encode(RGB, "JPEG")
    np.testing.assert_array_equal(decode(data + b"....ftypmp42\xff\xda...."), decode(data))


@pytest.mark.parametrize("compress_level", [0, 6])
def test_a_flipped_bit_in_a_png_is_noticed(compress_level: int) -> None:
    data = encode(RGB, "PNG", compress_level=compress_level)
    start, stop = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in np.linspace(start, stop - 1, 40).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(CorruptImage):
            decode(bytes(damaged))


def test_a_tiff_that_misses_a_strip_is_noticed() -> None:
    whole = tiff(RGB, photometric="rgb", rowsperstrip=8)
    decode(whole)
    offsets_tag = whole.index(np.array([273, 4], "<u2").tobytes())  # three strips become two
    assert whole[offsets_tag + 4] == 3
    data = bytearray(whole)
    data[offsets_tag + 4] = 2
    with pytest.raises(CorruptImage, match="fewer strips"):
        decode(bytes(data))


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_by_name(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(EVERY)))
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers are where the surprises are, so half of the damage goes there.
        end = data.draw(st.sampled_from([min(120, len(damaged)), len(damaged)]))
        damaged[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(damaged), max_pixels=1_000_000)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II\x2a\0", b"MM\0\x2b"]),
)
def test_any_bytes_are_read_or_refused_by_name(noise: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode(start + noise)


def test_threads_do_not_disturb_each_other() -> None:
    wanted = [decode(data) for data in EVERY]
    globals_before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    with ThreadPoolExecutor(8) as pool:
        for found, one in zip(pool.map(decode, EVERY * 8), wanted * 8, strict=True):
            np.testing.assert_array_equal(found, one)
    assert globals_before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


AS_STORED = {  # a camera's values, not scaled up, in every 16-bit form
    "png grey": lambda wide: encode(wide[:, :, 0], "PNG"),
    "png rgb": png16,
    "png rgba": lambda wide: png16(np.dstack([wide, np.full(wide.shape[:2], 65535, np.uint16)])),
    "tiff grey": lambda wide: tiff(wide[:, :, 0], photometric="minisblack"),
    "tiff grey, big end first": lambda wide: tiff(wide[:, :, 0].astype(">u2"), byteorder=">"),
    "tiff grey, deflated": lambda wide: tiff(wide[:, :, 0], compression="zlib"),
    "tiff grey, white is zero": lambda wide: tiff(wide[:, :, 0], photometric="miniswhite"),
    "tiff rgb": lambda wide: tiff(wide, photometric="rgb"),
    "tiff rgb, deflated": lambda wide: tiff(wide, photometric="rgb", compression="zlib"),
}


@pytest.mark.parametrize("form", AS_STORED)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_a_16_bit_picture_uses_are_counted(form: str, bits: int) -> None:
    wide = RGB.astype(np.uint16) * 257 >> 16 - bits
    wide[0, 0] = 2**bits - 1
    assert significant_bits(AS_STORED[form](wide)) == bits


def test_a_black_16_bit_picture_uses_few_bits() -> None:
    assert significant_bits(encode(np.zeros((3, 4), np.uint16), "PNG")) == 8


OF_8_BITS = {**LOSSY, **{name: data for name, (data, _) in LOSSLESS.items() if "16-bit" not in name}}


@pytest.mark.parametrize("name", OF_8_BITS)
def test_pictures_of_another_depth_have_no_such_bits(name: str) -> None:
    assert significant_bits(OF_8_BITS[name]) is None


def test_counting_bits_refuses_what_decoding_refuses() -> None:
    with pytest.raises(UnsupportedImage, match="none of"):
        significant_bits(b"GIF89a")
    wide = encode(GREY.astype(np.uint16) * 257, "PNG")
    with pytest.raises(CorruptImage):
        significant_bits(wide[:-30])
    with pytest.raises(ImageTooLarge, match="at most 10"):
        significant_bits(wide, max_pixels=10)
