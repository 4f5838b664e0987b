"""A corpus of damaged and forged pictures: none crashes, hangs, takes memory, or is judged though it is broken."""

import json
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

POST = "/v1/categories/plate/inspections"
MOST_PIXELS = 1_000_000
Files = dict[str, bytes]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]

# In a process of its own, so that a crash is seen, and memory is that of decoding alone.
_DECODE = """
import json, resource, struct, sys, time
from models.errors import ImageError
from models.images import decode, decode_reduced

LEAST = 7  # of the corpus's edges, so that JPEGs are decoded at an eighth

def whole(data):
    try:
        return list(decode(data, max_pixels=int(sys.argv[1])).shape)
    except ImageError as error:
        return type(error).__name__

def reduced(data):
    try:
        return [*decode_reduced(data, least=LEAST, max_pixels=int(sys.argv[1])).size, 3]
    except ImageError as error:
        return type(error).__name__

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

stream, found, begun = sys.stdin.buffer, [], peak()
while head := stream.read(4):
    data = stream.read(struct.unpack("<I", head)[0])
    before, start = peak(), time.process_time()
    outcome = whole(data)
    took = time.process_time() - start
    found.append((outcome, reduced(data), took, peak() - before))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes(files: Files) -> dict[str, str | list[int]]:
    """What `decode` made of each file: the kind of refusal, or a shape."""
    sent = b"".join(len(data).to_bytes(4, "little") + data for data in files.values())
    command = [sys.executable, "-W", "error", "-c", _DECODE, str(MOST_PIXELS)]
    done = subprocess.run(command, input=sent, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(zip(files, json.loads(done.stdout), strict=True))
    slow = {name: seconds for name, (_, _, seconds, _) in found.items() if seconds > 2}
    large = {name: grown for name, (*_, grown) in found.items() if grown > 64}  # MiB; a megapixel takes 3
    other = {name: (whole, reduced) for name, (whole, reduced, *_) in found.items() if whole != reduced}
    assert not slow
    assert not large
    assert not other  # at a fraction of its size as much is noticed
    return {name: outcome for name, (outcome, *_) in found.items()}


def test_the_corpus_is_of_both_kinds(files: Files, outcomes: dict[str, str | list[int]]) -> None:
    assert len(files) >= 2000
    assert len(set(files.values())) > 0.95 * len(files)
    kinds = Counter("judged" if isinstance(outcome, list) else outcome for outcome in outcomes.values())
    assert {"judged", "CorruptImage", "UnsupportedImage", "ImageTooLarge"} == set(kinds)
    assert min(kinds["judged"], kinds["CorruptImage"]) > len(files) / 5


def test_nothing_is_read_that_others_call_broken(files: Files, outcomes: dict[str, str | list[int]]) -> None:
    with silenced():
        wrong = [name for name, data in files.items() if isinstance(outcomes[name], list) and not _pillow(data)]
        both = [name for name in wrong if not _opencv(files[name])]
    assert not both
    assert not wrong  # a stricter demand than both together


@contextmanager
def silenced() -> Iterator[None]:
    """Without OpenCV's and Pillow's words on each of the files."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    cv2.utils.logging.setLogLevel(level)


def _pillow(data: bytes) -> bool:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except Exception:
        return False
    return True


def _opencv(data: bytes) -> bool:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    except cv2.error:
        return False


def _some(files: Files, outcomes: dict[str, str | list[int]], *, each: int) -> Iterator[tuple[str, bytes, set[int]]]:
    """As many files that are judged as are refused, with the statuses that are right for them."""
    for judged in (True, False):
        names = [name for name, outcome in outcomes.items() if isinstance(outcome, list) is judged]
        for name in names[:: max(1, len(names) // each)][:each]:
            yield name, files[name], {201} if judged else {413, 415, 422}


def test_the_service_answers_each(client: TestClient, files: Files, outcomes: dict[str, str | list[int]]) -> None:
    for name, data, statuses in _some(files, outcomes, each=150):
        answer = client.post(POST, content=data)
        assert answer.status_code in statuses, (name, answer.text)
        assert ("verdict" in answer.json()) is (answer.status_code == 201)


@pytest.fixture
def claims(whole: Files) -> Files:
    """Files of a few kilobytes, of each format, whose headers say 60,000 x 60,000 pixels (WebP: 16,383)."""
    side, edge = 60_000, struct.Struct("<I")
    forms = ("png grey", "jpeg", "bmp", "tiff tiled, lzw", "webp", "webp animated")
    png, jpeg, bmp, tiff, webp, animated = made = [bytearray(whole[form]) for form in forms]
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", side, side)
    bmp[18:26] = edge.pack(side) * 2
    for tag in (256, 257):
        place = tiff.index(struct.pack("<HHI", tag, 4, 1)) + 8
        tiff[place : place + 4] = edge.pack(side)
    frame = webp.index(b"VP8 ") + 14
    webp[frame : frame + 4] = struct.pack("<HH", 16_383, 16_383)
    canvas = animated.index(b"VP8X") + 12
    animated[canvas : canvas + 6] = (side - 1).to_bytes(3, "little") * 2
    return {form: bytes(data) for form, data in zip(forms, made, strict=True)}


def test_files_that_claim_to_be_large_are_refused_by_their_header(client: TestClient, claims: Files) -> None:
    service = client.app_state["service"]
    for name, data in claims.items():
        assert len(data) < 20_000
        begun = time.perf_counter()
        assert client.post(POST, content=data).status_code == 413, name
        assert time.perf_counter() - begun < 2, name
    assert service.settings.max_pixels < 60_000 * 60_000


def test_so_it_does_over_a_real_connection(
    serving: Serving, artifact_path: Path, tmp_path: Path, files: Files, outcomes: dict[str, str | list[int]]
) -> None:
    with (
        serving(artifact_path.parent.parent, tmp_path) as (process, address),
        httpx2.Client(base_url=address) as client,
    ):
        for name, data, statuses in _some(files, outcomes, each=40):
            for request in ({"content": data}, {"files": {"image": ("part.png", data)}}):
                answer = client.post(POST, **request)
                # A form's empty file is a request without a picture.
                assert answer.status_code in statuses | ({400} if not data else set()), (name, answer.text)
        assert process.poll() is None
    assert "Traceback" not in (tmp_path / "server.log").read_text()
