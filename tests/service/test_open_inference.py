"""The Open Inference Protocol over HTTP: what is judged, what is refused and how, and what is then stored."""

import base64
import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from models.images import decode
from service.app import create_app
from service.settings import Settings
from service.state import Service

NATIVE = "/v1/categories/plate/inspections"
INFER = "/v2/models/plate/infer"
LENGTH = "Inference-Header-Content-Length"
Picture = Callable[[int], bytes]


@pytest.fixture(scope="module")
def client(artifact_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that the tests of this module share."""
    settings = Settings(
        artifacts=artifact_path.parent.parent,
        data=tmp_path_factory.mktemp("data"),
        device="cpu",
        open_hosts=("testserver",),
        queue_limit=4,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def in_json(*pictures: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(each).decode() for each in pictures]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(pictures)], "data": data}], **more}


def in_binary(*tensors: tuple[str, str, list[int], bytes], **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in tensors
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    content = head + b"".join(data for *_, data in tensors)
    return {"content": content, "headers": {LENGTH: str(len(head))}}


def framed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def results(client: TestClient, **request: Any) -> dict[str, list[Any]]:
    """The outputs of a response that is JSON alone."""
    answer = client.post(INFER, **request)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    assert LENGTH not in answer.headers
    return {each["name"]: each["data"] for each in answer.json()["outputs"]}


def refused(client: TestClient, status: int, *, path: str = INFER, **request: Any) -> str:
    """Expect this status in the protocol's form, nothing stored, and return its sentence."""
    before = count(client)
    answer = client.post(path, **request)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert list(answer.json()) == ["error"]
    assert count(client) == before
    return str(answer.json()["error"])


def count(client: TestClient) -> int:
    """Stored inspections, read from the file by another connection."""
    with closing(sqlite3.connect(running(client).settings.data / "jigsight.sqlite")) as connection:
        return int(connection.execute("SELECT count(*) FROM inspections").fetchone()[0])


def pixels(client: TestClient, array: NDArray[Any], **more: Any) -> dict[str, list[Any]]:
    return results(client, **in_binary(("image", "UINT8", list(array.shape), array.tobytes()), **more))


def test_a_picture_in_json_scores_as_on_the_native_route(client: TestClient, good: Picture, bad: Picture) -> None:
    for picture in good(1), bad(1):
        native = client.post(NATIVE, content=picture).json()
        mine = results(client, json=in_json(picture))
        assert mine["score"] == [native["score"]]
        assert mine["verdict"] == [native["verdict"]]
        for name in "threshold", "margin", "p_value":
            assert mine[name] == [float(np.float32(native[name]))]
        assert "map" not in mine


def test_it_is_an_inspection_like_any_other(client: TestClient, bad: Picture) -> None:
    answer = client.post(INFER, json=in_json(bad(2), id="a7", parameters={"serial": "P-1", "station": "S 2"})).json()
    assert answer["id"] == "a7"
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    inspection = client.get(f"/v1/inspections/{outputs['inspection_id'][0]}").json()
    assert (inspection["serial"], inspection["station"]) == ("P-1", "S 2")
    assert (answer["model_name"], answer["model_version"]) == (inspection["category"], inspection["version"])
    assert inspection["score"] == outputs["score"][0]
    assert client.get(inspection["links"]["image"]).content == bad(2)


def test_pixels_are_kept_as_a_png_and_score_as_it_does(client: TestClient, bad: Picture) -> None:
    picture = decode(bad(4))
    mine = pixels(client, picture)
    kept = client.get(f"/v1/inspections/{mine['inspection_id'][0]}/image")
    assert kept.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(decode(kept.content), picture)
    assert mine["score"] == [client.post(NATIVE, content=bad(4)).json()["score"]]
    nested = {"name": "image", "datatype": "UINT8", "shape": [1, *picture.shape], "data": [picture.tolist()]}
    assert results(client, json={"inputs": [nested]})["score"] == mine["score"]


def test_several_parts_keep_their_order_and_names(client: TestClient, good: Picture, bad: Picture) -> None:
    pictures = [good(1), bad(1), good(2)]
    mine = results(
        client,
        **in_binary(
            ("serial", "BYTES", [3], framed(b"a", "ü".encode(), b"c")),
            ("image", "BYTES", [3], framed(*pictures)),
            parameters={"station": "S"},
        ),
    )
    assert mine["verdict"] == ["pass", "fail", "pass"]
    for picture, score, key, serial in zip(pictures, mine["score"], mine["inspection_id"], "aüc", strict=True):
        assert client.post(NATIVE, content=picture).json()["score"] == pytest.approx(score, rel=1e-4)
        inspection = client.get(f"/v1/inspections/{key}").json()
        assert (inspection["serial"], inspection["station"]) == (serial, "S")


def test_binary_and_json_inputs_may_be_mixed(client: TestClient, good: Picture) -> None:
    picture = framed(good(1))
    size = {"binary_data_size": len(picture)}
    inputs = [
        {"name": "station", "datatype": "BYTES", "shape": [1], "data": ["S"]},
        {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size},
        {"name": "serial", "datatype": "BYTES", "shape": [1], "data": ["P"]},
    ]
    head = json.dumps({"inputs": inputs}).encode()
    mine = results(client, content=head + picture, headers={LENGTH: str(len(head))})
    inspection = client.get(f"/v1/inspections/{mine['inspection_id'][0]}").json()
    assert (inspection["serial"], inspection["station"]) == ("P", "S")


def test_outputs_are_those_wanted_as_they_are_wanted(client: TestClient, good: Picture) -> None:
    outputs = [{"name": "verdict"}, {"name": "map", "parameters": {"binary_data": False}}, {"name": "score"}]
    wish = in_json(good(1), good(2), outputs=outputs, parameters={"binary_data_output": True})
    answer = client.post(INFER, json=wish)
    length = int(answer.headers[LENGTH])
    said = json.loads(answer.content[:length])["outputs"]
    assert [each["name"] for each in said] == ["verdict", "map", "score"]
    assert answer.content[length:-8] == framed(b"pass", b"pass")
    assert said[2] == {"name": "score", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    score_map = np.array(said[1]["data"], np.float32).reshape(said[1]["shape"])  # (n, h, w)
    assert len(score_map) == 2
    np.testing.assert_allclose(
        score_map.max((1, 2)), np.frombuffer(answer.content[-8:], "<f4"), rtol=2**-10
    )  # half precision


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (("image", "FP32", [1, 2, 2, 3], bytes(48)), "is FP32"),
        (("image", "UINT8", [2, 2], bytes(4)), "is UINT8 of shape"),
        (("image", "UINT8", [1, 3, 2, 2], bytes(12)), "is UINT8 of shape"),
        (("image", "UINT8", [1, 2, 2, 3], bytes(11)), "takes 12 bytes of data, not 11"),
        (("image", "UINT8", [2**62, 2, 2, 3], bytes(12)), "one request may hold"),
        (("image", "UINT8", [5, 1, 1, 3], bytes(15)), "more than the 4"),
        (("image", "BYTES", [1, 1], framed(b"x")), "BYTES of shape [1, 1]"),
        (("image", "BYTES", [1], struct.pack("<i", -1) + b"x"), "4294967295"),
        (("image", "BYTES", [2], framed(b"x")), "cannot hold 2"),
        (("image", "BYTES", [1], framed(b"x")[:-1]), "but 0 are left"),
        (("picture", "BYTES", [1], framed(b"x")), "no input 'picture'"),
        (("serial", "BYTES", [1], framed(b"x")), "no input 'image'"),
    ],
)
def test_tensors_that_are_refused(client: TestClient, tensor: tuple[str, str, list[int], bytes], said: str) -> None:
    assert said in refused(client, 400, **in_binary(tensor))


def test_more_pixels_than_allowed_are_refused_before_they_are_looked_at(client: TestClient) -> None:
    for shape in ([2**40, 2**40, 3], [1, 1, 2_000_000, 3], [100_001, 1000, 3]):
        assert "pixels" in refused(client, 413, **in_binary(("image", "UINT8", shape, b"")))


@pytest.mark.parametrize(
    ("shape", "status"),
    [([31_250, 32, 3], 200), ([32, 31_250, 3], 200), ([1_000_000, 1, 3], 422), ([1, 1_000_000, 3], 422)],
)
def test_long_edges_are_judged_unless_the_others_are_too_short(
    client: TestClient, shape: list[int], status: int
) -> None:
    tensor = ("image", "UINT8", shape, bytes(3_000_000))
    assert client.post(INFER, **in_binary(tensor)).status_code == status


def test_pictures_that_cannot_be_judged(client: TestClient, good: Picture) -> None:
    assert "none of JPEG" in refused(client, 415, json=in_json(b"text"))
    assert "0 bytes" in refused(client, 422, json=in_json(b""))
    assert "read to its end" in refused(client, 422, json=in_json(good(1)[:-100]))
    assert "31x40 pixels" in refused(client, 422, **in_binary(("image", "UINT8", [40, 31, 3], bytes(3720))))
    wrong = in_json(good(1))
    wrong["inputs"][0]["data"] = ["\ud800%"]
    assert "not base64" in refused(client, 400, content=json.dumps(wrong))


def test_labels_that_are_refused(client: TestClient, good: Picture) -> None:
    image = ("image", "BYTES", [2], framed(good(1), good(2)))
    assert "cannot belong to 2 parts" in refused(client, 400, **in_binary(image, parameters={"serial": "a"}))
    for kind, shape, data in (
        ("BYTES", [1], framed(b"a")),
        ("BYTES", [2, 1], framed(b"a", b"b")),
        ("UINT8", [2], b"ab"),
    ):
        assert "must be BYTES [2]" in refused(client, 400, **in_binary(image, ("serial", kind, shape, data)))
    for flaw in b"", b"a\n", b"x" * 129, b"\xff":
        assert "'station'" in refused(client, 400, **in_binary(image, ("station", "BYTES", [2], framed(b"a", flaw))))
    twice = in_binary(image, ("station", "BYTES", [2], framed(b"a", b"b")), parameters={"station": "c"})
    assert "Give it once" in refused(client, 400, **twice)
    assert "more than once" in refused(client, 400, **in_binary(image, image))


@pytest.mark.parametrize(
    "outputs", [[{"name": "scores"}], [{"name": "score"}] * 2, [{"name": "map", "parameters": {"classification": 3}}]]
)
def test_outputs_that_are_refused(client: TestClient, good: Picture, outputs: list[Any]) -> None:
    refused(client, 400, json=in_json(good(1), outputs=outputs))


def test_models_and_versions_that_do_not_judge(client: TestClient, good: Picture) -> None:
    active = running(client).registry.entry("plate").version
    assert "no category 'cup'" in refused(client, 404, path="/v2/models/cup/infer", json=in_json(good(1)))
    assert active in refused(client, 404, path="/v2/models/plate/versions/1/infer", json=in_json(good(1)))
    for path in "/v2/models/cup", "/v2/models/cup/ready", "/v2/models/plate/versions/1", "/v2/models/plate/config":
        answer = client.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
    assert list(client.put("/v2").json()) == ["error"]
    assert client.get("/v2/health/nothing").headers["content-type"] == "application/problem+json"


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    assert "'gzip'" in refused(client, 415, content=b"x", headers={"Content-Encoding": "gzip"})


def test_a_full_queue_is_told_in_the_protocol_s_form(client: TestClient, good: Picture) -> None:
    engine = running(client).engine
    with engine.admit("plate"), engine.admit("plate"), engine.admit("plate"), engine.admit("plate"):
        answer = client.post(INFER, json=in_json(good(1)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "in hand" in answer.json()["error"]


def test_a_failure_of_ours_has_the_protocol_s_form_and_tells_nothing(
    client: TestClient, good: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running(client).inspections, "score_map", lambda _: 1 / 0)
    error = client.post(INFER, json=in_json(good(1), outputs=[{"name": "map"}]))
    assert (error.status_code, list(error.json())) == (500, ["error"])
    assert "division" not in error.text


def test_requests_at_once_do_not_mix(client: TestClient, good: Picture, bad: Picture) -> None:
    def verdict(number: int) -> bool:
        picture = bad(number) if number % 3 else good(number)
        return results(client, json=in_json(picture))["verdict"] == ["fail" if number % 3 else "pass"]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(verdict, range(12)))


def test_metadata(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    model = client.get("/v2/models/plate").json()
    assert model["inputs"][0].items() > {"name": "image", "datatype": "BYTES", "shape": [-1]}.items()
    assert {each["name"]: each["shape"] for each in model["outputs"]}["map"] == [-1, -1, -1]
    assert client.get(f"/v2/models/plate/versions/{model['versions'][0]}").json() == model
    assert client.get("/v2/models/plate/ready").json() == {"name": "plate", "ready": True}


def test_the_index_lists_versions_that_do_not_judge(make: Callable[..., Path], tmp_path: Path) -> None:
    versions = [make(tmp_path / "artifacts", seed=seed).stem for seed in (1, 2)]
    settings = Settings(
        artifacts=tmp_path / "artifacts", data=tmp_path / "data", device="cpu", open_hosts=("testserver",)
    )
    with TestClient(create_app(settings)) as client:
        active = running(client).registry.entry("plate").version
        listed = client.post("/v2/repository/index").json()
        assert {each["version"]: each["state"] == "READY" for each in listed} == {v: v == active for v in versions}
        assert [each["version"] for each in client.post("/v2/repository/index", json={"ready": True}).json()] == [
            active
        ]
        refused(client, 422, path="/v2/repository/index", json={"ready": []})
        running(client).engine.stop()
        assert client.get("/v2/models/plate/ready").status_code == 503


def test_an_idempotency_key_is_not_ignored(client: TestClient, good: Picture) -> None:
    said = refused(client, 400, json=in_json(good(1)), headers={"Idempotency-Key": "a"})
    assert "POST /v1/categories/{category}/inspections" in said


def test_json_of_many_pixels_is_refused(client: TestClient) -> None:
    assert "Send pictures as binary data" in refused(client, 413, content=b'{"inputs": [' + b"1," * 2**21 + b"1]}")


def test_json_that_is_nested_deeply_is_told_so(client: TestClient) -> None:
    assert "nested too deeply" in refused(client, 400, content=b"[" * 100_000)
