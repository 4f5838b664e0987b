"""Bytes of one picture -> RGB. The only place where picture files are decoded; it writes none.

A picture is decoded to its end or refused by name (`ImageError`): never half, never another frame than the one looked
at; a large JPEG at a fraction of its size where that is asked for. What it is comes from its first bytes, never from
a file name or a content type that a client sent. Pillow's plugins are called directly: `Image.open` would warn at a
pixel limit that is Pillow's global state. 16-bit pixels keep their high byte, so 16-bit and 8-bit versions of a
picture decode to the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from models.image_signature import signed_format
from models.image_structure import check_exif, check_structure, is_lossless_jpeg
from models.jpeg_pixels import Colours, jpeg_pixels
from models.png_pixels import ends_early, store_pixels

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000

# JpegImageFile reads the first picture of a phone's MPO file and leaves its previews alone.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}
_TURNS = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOURS: dict[str, Colours] = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # of a JPEG, by Pillow's mode
_YCBCR, _TIFF_HEADER = 6, 8  # a way to keep colours; bytes
_REDUCTIONS = (8, 4, 2)  # what libjpeg's inverse transform leaves of a block: one pixel, 2x2 or 4x4
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"})


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """One picture file -> (h, w, 3) uint8 RGB, upright (EXIF), writable and contiguous. Safe in any thread.

    Grey is repeated, palettes are looked up, alpha is dropped, CMYK and YCbCr are converted.
    Raises `UnsupportedImage` (format, pixel type, several pages or pictures), `ImageTooLarge` (more than `max_pixels`,
    found in the header) or `CorruptImage`; no other exception, whatever the bytes.
    """
    name = _sniff(data)
    with _refusals(name):
        return _rgb(_open(data, name, max_pixels), data)


@dataclass(frozen=True)
class Decoded:
    """`rgb` (h, w, 3) uint8, and the `size` (height, width) of the picture itself, of which `rgb` may be a fraction."""

    rgb: NDArray[np.uint8]
    size: tuple[int, int]


def decode_reduced(data: bytes, *, least: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """As `decode`, but a JPEG at 1/2, 1/4 or 1/8 of its size: the smallest of which both edges are `least` pixels.

    Only where that divides both edges: every pixel then stands for as much of the picture as the others. Raises as
    `decode` does.
    """
    name = _sniff(data)
    with _refusals(name):
        opened = _open(data, name, max_pixels)
        reduction = 1 if name != "JPEG" or is_lossless_jpeg(data) else _reduce(opened, least)
        rgb = _rgb(opened, data)
    return Decoded(rgb, (rgb.shape[0] * reduction, rgb.shape[1] * reduction))


def significant_bits(data: bytes, *, max_pixels: int = MAX_PIXELS) -> int | None:
    """How many of a 16-bit picture's bits its largest value uses, 8 or more; None for any other depth.

    12 or fewer where the camera's values were stored as they were, 0 to 4095, and not scaled to 65535: `decode`
    gives such a picture nearly black. Raises as `decode` does.
    """
    name = _sniff(data)
    with _refusals(name):
        opened = _open(data, name, max_pixels)
        if _depth(opened, data) != 16:
            return None
        opened.load()
        if opened.mode.startswith("I;16"):
            return max(8, int(np.asarray(opened).max()).bit_length())
        # Pillow keeps the high bytes of colours. Without the alpha, which is full where all else is dark.
        return 8 + int(np.array(opened.convert("RGB")).max()).bit_length()


def media_type(data: bytes) -> str:
    """The picture's media type by its first bytes, e.g. "image/png". Raises as `decode` does."""
    return f"image/{_sniff(data).lower()}"


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Whatever goes wrong inside, as an `ImageError` in our words: a decoder's are its cause, and for developers."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        raise ImageTooLarge(f"The {name} claims far more pixels than can be judged. Send fewer pixels.") from reason
    except MemoryError as reason:
        raise ImageTooLarge(f"The {name} needs more memory to decode than there is. Send fewer pixels.") from reason
    except Exception as reason:  # Pillow's plugins raise a dozen types on damaged files, SyntaxError among them
        raise CorruptImage(
            f"The {name} cannot be read to its end: it is damaged, was cut off or is of an unusual kind. Send it "
            "again, or save it anew as PNG with 8 bits per channel."
        ) from reason


def _sniff(data: bytes) -> str:
    if not data:
        raise CorruptImage("The picture is empty (0 bytes). Send the bytes of a picture file.")
    if name := signed_format(data):
        return name
    raise UnsupportedImage(
        f"These {len(data)} bytes begin with {data[:8].hex(' ')}, which is none of {', '.join(FORMATS)}. "
        "Convert the picture to PNG."
    )


def _open(data: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile:
    """The picture, not decoded yet, if nothing in its header or frame speaks against it."""
    check_structure(data, name, max_pixels=max_pixels)
    opened = _PLUGINS[name](BytesIO(data))
    _refuse_by_header(opened, name, max_pixels)
    if name == "PNG":
        opened.verify()  # the checksums: decoding alone looks at none, and not always at zlib's
        opened = _PLUGINS[name](BytesIO(data))
    elif name == "TIFF":
        _refuse_odd_tiff(opened)
    return opened


def _reduce(opened: ImageFile.ImageFile, least: int) -> int:
    """Have a JPEG that is large enough decoded at a fraction of its size; what that divides its edges by."""
    width, height = opened.size
    for reduction in _REDUCTIONS:
        if min(width, height) >= reduction * least and width % reduction == 0 == height % reduction:
            opened.draft(None, (width // reduction, height // reduction))
            break
    return width // opened.width  # not `reduction`: Pillow need not do what it is asked


def _rgb(opened: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint8]:
    if isinstance(opened, JpegImageFile) and not is_lossless_jpeg(data):
        return _rgb_of_jpeg(opened, data)
    if isinstance(opened, PngImageFile):
        stored = store_pixels(data)  # the same, in less time
        if stored is data and ends_early(data):
            raise CorruptImage("The PNG holds fewer rows than it is high: part of it is missing. Send it again.")
        opened = PngImageFile(BytesIO(stored))
    opened.load()
    # After loading: a TIFF was turned by Pillow itself and no longer says so.
    turn = _turn(opened)
    upright = _turned(opened, turn)
    if upright.mode.startswith("I;16"):
        return _interleaved([_high_byte(np.asarray(upright), opened)] * 3)
    if upright.mode == "L":
        return _interleaved([np.asarray(upright)] * 3)
    upright.info.pop("transparency", None)  # else palettes with it are converted with a warning
    if upright.mode in ("La", "RGBa"):
        upright = upright.convert(upright.mode.upper())
    return _interleaved([np.asarray(band) for band in upright.convert("RGB").split()])


def _rgb_of_jpeg(opened: JpegImageFile, data: bytes) -> NDArray[np.uint8]:
    """The same of a JPEG. Pillow has read its header, and says at what size it is decoded."""
    turn, colours = _turn(opened), _COLOURS[opened.mode]
    pixels = jpeg_pixels(data, colours, size=(opened.height, opened.width))
    if pixels is None or colours == "CMYK":  # CMYK is the other way round in most files: Pillow knows
        return _interleaved([np.asarray(band) for band in _turned(opened, turn).convert("RGB").split()])
    if turn is not None:
        pixels = np.array(_turned(Image.fromarray(pixels), turn))
    return _interleaved([pixels] * 3) if colours == "GRAY" else pixels


def _turn(opened: ImageFile.ImageFile) -> Image.Transpose | None:
    """What brings the picture upright."""
    check_exif(opened.info.get("exif", b""))
    return _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def _interleaved(bands: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Three (h, w) -> (h, w, 3): a quarter of the time in which Pillow writes out its four bytes a pixel as three."""
    return np.asarray(cv2.merge(bands), np.uint8)


def _depth(opened: ImageFile.ImageFile, data: bytes) -> int:
    """Bits per channel, as they are stored."""
    if isinstance(opened, TiffImageFile):
        return int(max(opened.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))))
    return data[24] if isinstance(opened, PngImageFile) else 8  # a PNG's header chunk comes first


def _refuse_by_header(opened: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The {name} is {width}x{height} = {width * height} pixels; at most {max_pixels} are accepted. "
            "Scale it down or crop it to the part."
        )
    # Not n_frames: it walks a TIFF's whole chain of pages, which can be made millions long.
    if getattr(opened, "is_animated", False):
        raise UnsupportedImage(
            f"The {name} holds several frames or pages, and a verdict on the first would let the others slip. "
            "Send each as a picture of its own."
        )
    if opened.mode not in _EIGHT_BIT_MODES and not opened.mode.startswith("I;16"):
        raise UnsupportedImage(
            f"The {name} has pixels of type {opened.mode}, whose range from black to white is not known "
            "(32-bit, signed, floating point or CIELAB). Save it with 8 or 16 unsigned bits per channel."
        )


def _refuse_odd_tiff(opened: ImageFile.ImageFile) -> None:
    """Two kinds of uncompressed TIFF that Pillow would decode without a word, but not to the picture they hold."""
    tags = opened.tag_v2  # type: ignore[attr-defined]
    if tags.get(259, 1) != 1:
        return
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
    if tags.get(ExifTags.Base.PlanarConfiguration) == 2 and set(bits) != {8}:
        raise UnsupportedImage(
            f"The TIFF keeps its colours in separate planes of {bits[0]} bits. Save them interleaved."
        )
    covered = 0
    for tile in opened.tile:
        left, top, right, bottom = tile.extents or (0, 0, 0, 0)
        covered += (right - left) * (bottom - top)
    if covered < opened.width * opened.height:
        raise CorruptImage("The TIFF lists fewer strips than the picture is high: part of it is missing.")
    if _has_short_pieces(opened):
        raise CorruptImage("A strip or tile of the TIFF is shorter than its pixels are: part of it is missing.")


def _has_short_pieces(opened: ImageFile.ImageFile) -> bool:
    """Whether an uncompressed TIFF says of a strip or tile that it is shorter than it must be, or lies in its header.

    Pillow takes as many bytes as it needs from there on.
    """
    tags = opened.tag_v2  # type: ignore[attr-defined]
    photometric = tags.get(ExifTags.Base.PhotometricInterpretation)
    tiled = ExifTags.Base.StripOffsets not in tags  # as Pillow chooses where both are there
    if tiled:
        names = ExifTags.Base.TileOffsets, ExifTags.Base.TileByteCounts
    else:
        names = ExifTags.Base.StripOffsets, ExifTags.Base.StripByteCounts
    offsets, lengths = map(tags.get, names)
    if photometric == _YCBCR or offsets is None or lengths is None or len(offsets) != len(lengths):
        return False  # fewer colours than pixels, or nothing is said
    bits, planes = tags.get(ExifTags.Base.BitsPerSample, (1,)), tags.get(ExifTags.Base.PlanarConfiguration) == 2
    each = bits[0] if planes else sum(bits)
    if tiled:
        width, height = tags[ExifTags.Base.TileWidth], tags[ExifTags.Base.TileLength]
        rows = [height] * len(offsets)
    else:
        width, height = opened.width, min(tags.get(ExifTags.Base.RowsPerStrip, opened.height), opened.height)
        pieces = -(-opened.height // height)
        rows = [min(height, opened.height - number % pieces * height) for number in range(len(offsets))]
    return any(
        offset < _TIFF_HEADER or length < high * ((width * each + 7) // 8)
        for offset, length, high in zip(offsets, lengths, rows, strict=True)
    )


def _high_byte(grey: NDArray[np.uint16], opened: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """The upper 8 of 16 bits (of 12 in a packed 12-bit TIFF), turned round where a TIFF says white is 0."""
    bits, white_is_zero = 16, False
    if isinstance(opened, TiffImageFile):
        bits = opened.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]
        white_is_zero = opened.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
    high = (grey >> (bits - 8)).astype(np.uint8)
    return 255 - high if white_is_zero else high
