"""What is sent to be judged: forms, labels, sizes, and files that are not what they seem."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


def refused(client: TestClient, status: int, **request: object) -> str:
    """Post, expect this status as a problem, and return its sentence."""
    answer = client.post(POST, **request)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert "verdict" not in problem
    return str(problem["detail"])


def multipart(*parts: tuple[str, bytes], end: bytes = b"--xx--\r\n") -> dict[str, object]:
    body = b"".join(b"--xx\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (h.encode(), b) for h, b in parts)
    return {"content": body + end, "headers": {"content-type": MULTIPART}}


MULTIPART = "multipart/form-data; boundary=xx"
FILE = 'name="image"; filename="a.png"'


def test_nothing_sent(client: TestClient) -> None:
    assert "body is empty" in refused(client, 400)
    assert "0 bytes" in refused(client, 400, **multipart((FILE, b"")))
    assert "no file field `image`" in refused(client, 400, **multipart(('name="serial"', b"1")))
    assert "fields: picture" in refused(client, 400, **multipart(('name="picture"; filename="a"', b"x")))


def test_a_form_that_was_cut_off_is_not_judged(client: TestClient, good: Picture) -> None:
    assert "cut off" in refused(client, 400, **multipart((FILE, good(1)), end=b""))
    assert "cut off" in refused(client, 400, **multipart((FILE, good(1)), ('name="serial"', b"1"), end=b""))
    assert "cut off" in refused(client, 400, content=b"--xx", headers={"content-type": MULTIPART})


def test_a_form_that_is_not_one(client: TestClient, good: Picture) -> None:
    refused(client, 400, content=good(1), headers={"content-type": "multipart/form-data"})
    refused(client, 400, content=good(1), headers={"content-type": MULTIPART})
    assert "file name" in refused(client, 400, **multipart(('name="image"', good(1))))


def test_two_pictures_are_one_too_many(client: TestClient, good: Picture) -> None:
    refused(client, 400, **multipart((FILE, good(1)), (FILE, good(2))))


def test_a_label_is_given_once(client: TestClient, good: Picture) -> None:
    form = multipart((FILE, good(1)), ('name="serial"', b"1"))
    assert "more than once" in refused(client, 400, params={"serial": "1"}, **form)
    form = multipart((FILE, good(1)), ('name="serial"', b"1"), ('name="serial"', b"2"))
    assert "more than once" in refused(client, 400, **form)


@pytest.mark.parametrize("label", ["", "x" * 129, "line\nbreak", "null\x00byte"])
def test_labels_are_checked_wherever_they_come_from(client: TestClient, good: Picture, label: str) -> None:
    assert "serial" in refused(client, 422, params={"serial": label}, content=good(1))
    form = multipart((FILE, good(1)), ('name="station"', label.encode()))
    assert "body.station" in refused(client, 422, **form)


def test_labels_may_be_of_any_language(client: TestClient, good: Picture) -> None:
    answer = client.post(POST, params={"serial": "部品 №7/ä"}, content=good(1))
    assert answer.json()["serial"] == "部品 №7/ä"


@pytest.fixture
def small(settings: Settings) -> Iterator[TestClient]:
    limits = {"max_body_bytes": 50_000, "max_pixels": 100 * 130}
    with TestClient(create_app(settings.model_copy(update=limits))) as client:
        yield client


def test_a_body_that_announces_too_much_is_refused(small: TestClient) -> None:
    assert "50,001 bytes are announced" in refused(small, 413, content=bytes(50_001))


def test_a_body_without_a_length_is_cut_off(small: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(5_000)

    assert "more than 50,000 bytes" in refused(small, 413, content=endless())


def test_a_form_obeys_the_same_limit(small: TestClient, good: Picture) -> None:
    refused(small, 413, **multipart((FILE, bytes(60_000))))
    answer = small.post(POST, **multipart((FILE, good(1))))  # type: ignore[arg-type]
    assert answer.status_code == 201


def test_pixels_are_limited_before_decoding(small: TestClient, good: Picture) -> None:
    file = io.BytesIO()
    Image.new("L", (131, 100)).save(file, "PNG")
    assert "13100 pixels" in refused(small, 413, content=file.getvalue())


def bomb() -> bytes:
    """A PNG of 30000 x 30000 pixels in a few hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"x", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"GIF89a" + bytes(100), 415),
        (b"%PDF-1.7" + bytes(100), 415),
        (b"\x80\x04\x95" + bytes(100), 415),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422),
        (b"\xff\xd8\xff\xe0" + bytes(100), 422),
        (b"BM" + bytes(100), 422),
        (b"II*\x00" + bytes(100), 422),
        (b"RIFF\x00\x00\x00\x00WEBP" + bytes(100), 422),
        (bomb(), 413),
    ],
)
def test_hostile_files_are_refused_by_name(client: TestClient, data: bytes, status: int) -> None:
    refused(client, status, content=data)
    refused(client, status, **multipart((FILE, data)))


def test_a_picture_that_is_too_small_is_refused_by_name(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    answer = client.post(POST, content=file.getvalue())
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:jigsight:problem:image-too-small")
    assert "1x1 pixels; at least 32x32" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_picture_is_never_half_judged(client: TestClient, good: Picture, kind: str) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(good(1))).save(file, kind)
    whole = file.getvalue()
    assert client.post(POST, content=whole).status_code == 201
    for share in (0.1, 0.5, 0.9, 0.99):
        refused(client, 422, content=whole[: int(len(whole) * share)])


def test_after_all_that_the_service_still_judges(client: TestClient, good: Picture, bad: Picture) -> None:
    for data in (b"", b"x", bomb(), good(1)[:500]):
        client.post(POST, content=data)
    assert client.post(POST, content=good(1)).json()["verdict"] == "pass"
    assert client.post(POST, content=bad(1)).json()["verdict"] == "fail"
