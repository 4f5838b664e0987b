"""What kind of picture some bytes begin, by their signature: never by a file's name or what a client says it is."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
)


def signed_format(data: bytes, at: int = 0) -> str | None:
    """The format of `models.images.FORMATS` whose signature is at this place; None if there is none."""
    if data[at : at + 4] == b"RIFF" and data[at + 8 : at + 12] == b"WEBP":
        return "WEBP"
    return next((name for signature, name in _SIGNATURES if data.startswith(signature, at)), None)
