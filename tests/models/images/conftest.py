"""Files of one small picture, in every form that is read; what `models.images` is tested with."""

from collections.abc import Callable
from io import BytesIO
from typing import Final

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

HEIGHT, WIDTH = 24, 40


def picture() -> np.ndarray:
    """No two channels, rows, columns or corners alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 6, y * 10, (x + 2 * y) * 2], axis=-1).astype(np.uint8)


RGB = picture()
GREY = RGB[:, :, 0].copy()
THRICE = np.repeat(GREY[:, :, None], 3, axis=2)


def _encode(pixels: np.ndarray | Image.Image, name: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def _png16(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", rgb[:, :, [2, 1, 0, *range(3, rgb.shape[2])]])[1].tobytes()


WIDE = RGB.astype(np.uint16) * 257
LOSSLESS = {
    "png": (_encode(RGB, "PNG"), RGB),
    "png grey": (_encode(GREY, "PNG"), THRICE),
    "png grey with alpha": (_encode(np.dstack([GREY, RGB[:, :, 1]]), "PNG"), THRICE),
    "png rgba": (_encode(np.dstack([RGB, GREY]), "PNG"), RGB),
    "png 1-bit": (_encode(Image.fromarray(GREY > 99), "PNG"), np.where(THRICE > 99, 255, 0)),
    "png palette": (_encode(Image.fromarray(GREY).convert("P"), "PNG"), THRICE),
    "png palette with alpha": (_encode(Image.fromarray(GREY).convert("P"), "PNG", transparency=b"\0" * 9), THRICE),
    "png with a transparent colour": (_encode(RGB, "PNG", transparency=tuple(RGB[3, 3].tolist())), RGB),
    "png 16-bit grey": (_encode(GREY.astype(np.uint16) * 257, "PNG"), THRICE),
    "png 16-bit grey, shifted": (_encode(GREY.astype(np.uint16) << 8, "PNG"), THRICE),
    "png 16-bit rgb": (_png16(WIDE), RGB),
    "png 16-bit rgba": (_png16(np.dstack([WIDE, WIDE[:, :, 0]])), RGB),
    "bmp": (_encode(RGB, "BMP"), RGB),
    "bmp palette": (_encode(Image.fromarray(GREY).convert("P"), "BMP"), THRICE),
    "webp": (_encode(RGB, "WEBP", lossless=True), RGB),
    "tiff": (_encode(RGB, "TIFF"), RGB),
    "tiff lzw": (_encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "tiff cmyk": (_encode(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "tiff tiled": (_tiff(RGB, photometric="rgb", tile=(16, 16)), RGB),
    "tiff planes": (_tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), RGB),
    "tiff big": (_tiff(RGB, photometric="rgb", bigtiff=True), RGB),
    "tiff white is zero": (_tiff(255 - GREY, photometric="miniswhite"), THRICE),
    "tiff 16-bit grey": (_tiff(GREY.astype(np.uint16) * 257, photometric="minisblack"), THRICE),
    "tiff 16-bit grey, big end first": (_tiff(GREY.astype(">u2") << 8, byteorder=">"), THRICE),
    "tiff 16-bit grey, deflated": (_tiff(GREY.astype(np.uint16) << 8, compression="zlib"), THRICE),
    "tiff 16-bit, white is zero": (_tiff(65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite"), THRICE),
    "tiff 16-bit rgb": (_tiff(WIDE, photometric="rgb"), RGB),
    "tiff 16-bit rgb, big end first": (_tiff(WIDE.astype(">u2"), photometric="rgb", byteorder=">"), RGB),
    "tiff 16-bit rgb, deflated": (_tiff(WIDE, photometric="rgb", compression="zlib"), RGB),
}

LOSSY = {
    "jpeg": _encode(RGB, "JPEG", quality=95),
    "jpeg progressive": _encode(RGB, "JPEG", quality=95, progressive=True),
    "jpeg cmyk": _encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95),
    "webp lossy": _encode(RGB, "WEBP", quality=95),
    "tiff jpeg": _encode(RGB, "TIFF", compression="jpeg", quality=95),
}

EVERY: Final = {name: data for name, (data, _) in LOSSLESS.items()} | LOSSY
# A camera's values, not scaled up, in every 16-bit form.
AS_STORED = {
    "png grey": lambda wide: _encode(wide[:, :, 0], "PNG"),
    "png rgb": _png16,
    "png rgba": lambda wide: _png16(np.dstack([wide, np.full(wide.shape[:2], 65535, np.uint16)])),
    "tiff grey": lambda wide: _tiff(wide[:, :, 0], photometric="minisblack"),
    "tiff grey, big end first": lambda wide: _tiff(wide[:, :, 0].astype(">u2"), byteorder=">"),
    "tiff grey, deflated": lambda wide: _tiff(wide[:, :, 0], compression="zlib"),
    "tiff grey, white is zero": lambda wide: _tiff(wide[:, :, 0], photometric="miniswhite"),
    "tiff rgb": lambda wide: _tiff(wide, photometric="rgb"),
    "tiff rgb, deflated": lambda wide: _tiff(wide, photometric="rgb", compression="zlib"),
}
OF_8_BITS: Final = {name: data for name, data in EVERY.items() if "16-bit" not in name}


@pytest.fixture
def rgb() -> np.ndarray:
    """The picture, (24, 40, 3) uint8; no two channels, rows, columns or corners are alike."""
    return RGB.copy()


@pytest.fixture
def grey() -> np.ndarray:
    """Its first channel, (24, 40)."""
    return GREY.copy()


@pytest.fixture
def thrice() -> np.ndarray:
    """That channel as RGB, (24, 40, 3)."""
    return THRICE.copy()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Pixels or a Pillow image -> the bytes of a file that Pillow writes."""
    return _encode


@pytest.fixture
def tiff() -> Callable[..., bytes]:
    """Pixels -> the bytes of a TIFF, of forms that Pillow does not write."""
    return _tiff


@pytest.fixture
def png16() -> Callable[[np.ndarray], bytes]:
    """Pixels (h, w, 3 or 4) uint16 -> the bytes of a PNG."""
    return _png16


@pytest.fixture(params=LOSSLESS)
def lossless(request: pytest.FixtureRequest) -> tuple[bytes, np.ndarray]:
    """A file, and the pixels that it decodes to."""
    return LOSSLESS[request.param]


@pytest.fixture(params=LOSSY)
def lossy(request: pytest.FixtureRequest) -> bytes:
    """A file that decodes to nearly the picture."""
    return LOSSY[request.param]


@pytest.fixture(params=EVERY)
def file(request: pytest.FixtureRequest) -> bytes:
    """Any of the files."""
    return EVERY[request.param]


@pytest.fixture(params=OF_8_BITS)
def file_of_8_bits(request: pytest.FixtureRequest) -> bytes:
    """Any of those that are not of 16 bits."""
    return OF_8_BITS[request.param]


@pytest.fixture(params=AS_STORED)
def as_stored(request: pytest.FixtureRequest) -> Callable[[np.ndarray], bytes]:
    """(24, 40, 3) uint16 -> a file of 16 bits."""
    return AS_STORED[request.param]


@pytest.fixture(scope="session")
def files() -> list[bytes]:
    """All of the files."""
    return list(EVERY.values())
