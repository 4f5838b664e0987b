"""The pictures: linen as `jigsight sample` draws it, no two alike, as JPEG and PNG files, drawn once and kept.

An eighth of them is drawn; the others are those turned and mirrored, which costs a decoder and a network the same.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from line import QUALITY, draw_parts
from PIL import Image

from models.images import decode

_WAYS = 8  # four turns, mirrored or not


@dataclass(frozen=True)
class Pictures:
    """`good` is a folder to fit to; `files` are others to judge, by the ending of their names."""

    good: Path
    files: dict[str, list[str]]


def prepare(folder: Path, *, good: int, judged: int, size: int) -> Pictures:
    """Draw what is not there yet, size×size pixels each."""
    home = folder / f"linen-{size}-{good}-{judged}"
    if not home.exists():
        partial = folder / f".incoming-{home.name}"
        for name in ("good", "judged"):
            (partial / name).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # The pool's results are looked at, so that what goes wrong in it is heard of.
            list(pool.map(lambda entry: _write(partial, *entry, good=good), enumerate(_drawn(good + judged, size))))
        partial.rename(home)
    paths = sorted((home / "judged").iterdir())
    files = {
        "jpeg": [str(path) for path in paths if path.suffix == ".jpg"],
        "png": [str(path) for path in paths if path.suffix == ".png"],
    }
    return Pictures(home / "good", files)


def _drawn(count: int, size: int) -> Iterator[bytes]:
    """`count` different JPEGs."""
    scenes = [np.asarray(decode(data)) for data in draw_parts(-(-count // _WAYS), size=size)]
    for index in range(count):
        way, scene = divmod(index, len(scenes))
        turned = np.rot90(scenes[scene], way % 4)
        pixels = turned[:, ::-1] if way >= 4 else turned
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def _write(folder: Path, index: int, data: bytes, *, good: int) -> None:
    if index < good:
        (folder / "good" / f"{index:05d}.jpg").write_bytes(data)
        return
    path = folder / "judged" / f"{index:05d}.jpg"
    path.write_bytes(data)
    Image.fromarray(decode(data)).save(path.with_suffix(".png"), "PNG")
