"""The public client of the Open Inference Protocol against a server process, and the examples in docs/."""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from models.images import decode
from service.open_inference.messages import MOST_JSON_BYTES, MOST_JSON_LISTS
from service.storage.database import open_database

DOCUMENT = (Path(__file__).parents[2] / "docs" / "open_inference.md").read_text("utf-8")
Picture = Callable[[int], bytes]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture(scope="module")
def address(serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server that the tests of this module share."""
    with serving(artifact_path.parent.parent, tmp_path_factory.mktemp("data")) as (_, url):
        yield url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with closing(triton.InferenceServerClient(address)) as opened:
        yield opened


def files(*pictures: bytes) -> triton.InferInput:
    image = triton.InferInput("image", [len(pictures)], "BYTES")
    return image.set_data_from_numpy(np.array(pictures, object))


def pixels(*pictures: bytes, binary: bool) -> triton.InferInput:
    array = np.stack([decode(each) for each in pictures])
    image = triton.InferInput("image", list(array.shape), "UINT8")
    return image.set_data_from_numpy(array, binary_data=binary)


def test_it_finds_out_what_there_is(client: triton.InferenceServerClient, address: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    (listed,) = client.get_model_repository_index()
    assert (listed["name"], listed["state"]) == ("plate", "READY")
    assert client.get_model_metadata("plate", listed["version"])["versions"] == [listed["version"]]
    assert client.is_model_ready("plate", listed["version"])
    assert not client.is_model_ready("plate", "1")
    assert not client.is_model_ready("cup")


def test_two_clients_at_once_get_the_native_route_s_scores(address: str, good: Picture, bad: Picture) -> None:
    pictures = [good(1), bad(1), good(2), bad(2), bad(3)]
    native = [
        httpx2.post(f"http://{address}/v1/categories/plate/inspections", content=each).json() for each in pictures
    ]
    both = threading.Barrier(2)

    def scores(image: Callable[[bytes], triton.InferInput]) -> list[tuple[float, str]]:
        found = []
        with closing(triton.InferenceServerClient(address)) as client:
            both.wait(30)
            for each in pictures:
                result = client.infer("plate", [image(each)])
                found.append((float(result.as_numpy("score")[0]), result.as_numpy("verdict")[0].decode()))
        return found

    with ThreadPoolExecutor(2) as pool:
        of_files = pool.submit(scores, files)
        of_pixels = pool.submit(scores, lambda each: pixels(each, binary=False))
        for found in of_files.result(), of_pixels.result():
            assert [verdict for _, verdict in found] == [each["verdict"] for each in native]
            assert [score for score, _ in found] == pytest.approx([each["score"] for each in native], rel=1e-4)


def test_two_clients_with_keys_of_their_own(
    serving: Serving, artifact_path: Path, tmp_path: Path, issue: Callable[..., str], good: Picture, bad: Picture
) -> None:
    with closing(open_database(f"sqlite:///{tmp_path / 'jigsight.sqlite'}")) as database:
        secrets = [issue(database, name, "inspect") for name in ("one", "two")]
    pictures = [good(1), bad(1), good(2), bad(2)]
    with serving(artifact_path.parent.parent, tmp_path) as (_, url):
        headers = [{"Authorization": f"Bearer {secrets[0]}"}, {"X-API-Key": secrets[1]}]
        native = [
            httpx2.post(f"{url}/v1/categories/plate/inspections", content=each, headers=headers[0]).json()["score"]
            for each in pictures
        ]
        address, both = url.removeprefix("http://"), threading.Barrier(2)

        def scores(key: dict[str, str]) -> list[float]:
            with closing(triton.InferenceServerClient(address)) as client:
                both.wait(30)
                return [
                    float(client.infer("plate", [files(each)], headers=key).as_numpy("score")[0])
                    for each in pictures * 5
                ]

        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(scores, headers):
                assert found == pytest.approx(native * 5, rel=1e-4)
        with closing(triton.InferenceServerClient(address)) as client:
            assert refused(client, files(good(1))).startswith("401 ")
            assert refused(client, files(good(1)), headers={"X-API-Key": secrets[0][:-1]}).startswith("401 ")


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_in_either_form(client: triton.InferenceServerClient, address: str, bad: Picture, binary: bool) -> None:
    names = ["map", "inspection_id", "margin", "threshold", "p_value", "verdict", "score"]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer("plate", [pixels(bad(1), bad(2), binary=True)], outputs=wanted, request_id="r")
    response = result.get_response()
    assert response["id"] == "r"
    assert [each["name"] for each in response["outputs"]] == names
    for place in range(2):
        key = np.atleast_1d(result.as_numpy("inspection_id"))[place]
        inspection = httpx2.get(f"http://{address}/v1/inspections/{key.decode() if binary else key}").json()
        for name in "score", "threshold", "margin", "p_value":
            assert result.as_numpy(name).dtype == np.float32
            assert result.as_numpy(name)[place] == np.float32(inspection[name])
        assert result.as_numpy("map")[place].max() == pytest.approx(inspection["score"], rel=2**-10)  # half precision


def test_half_of_the_tensors_in_json(client: triton.InferenceServerClient, address: str, good: Picture) -> None:
    serial = triton.InferInput("serial", [2], "BYTES")
    serial.set_data_from_numpy(np.array(["P 1", "Pü2"], object), binary_data=False)
    result = client.infer("plate", [serial, files(good(1), good(2))])
    keys = [key.decode() for key in result.as_numpy("inspection_id")]
    found = [httpx2.get(f"http://{address}/v1/inspections/{key}").json()["serial"] for key in keys]
    assert found == ["P 1", "Pü2"]


def refused(client: triton.InferenceServerClient, *inputs: triton.InferInput, model: str = "plate", **more: Any) -> str:
    with pytest.raises(InferenceServerException) as refusal:
        client.infer(model, list(inputs), **more)
    return f"{refusal.value.status()} {refusal.value.message()}"


def test_errors_reach_the_client_in_words(client: triton.InferenceServerClient, good: Picture) -> None:
    assert refused(client, files(good(1)), model="cup").startswith("404 There is no category 'cup'.")
    assert refused(client, files(good(1)), model_version="3").startswith("404 Version '3'")
    assert refused(client, files(good(1)[:-99])).startswith("422 The PNG cannot be read")
    assert refused(client, files(b"text")).startswith("415 ")
    numbers = triton.InferInput("image", [1, 2, 2, 3], "FP32").set_data_from_numpy(np.zeros((1, 2, 2, 3), np.float32))
    assert refused(client, numbers).startswith("400 Input 'image' is FP32")
    shared = triton.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 100)
    assert refused(client, shared).startswith("400 ")
    assert refused(client, files(good(1)), parameters={"seriall": "1"}).startswith("400 ")
    assert refused(client, files(good(1)), outputs=[triton.InferRequestedOutput("a")]).startswith("400 ")
    assert refused(client, files(good(1)), request_compression_algorithm="gzip").startswith("415 ")
    with pytest.raises(InferenceServerException, match="There is nothing at /v2/models/plate/config"):
        client.get_model_config("plate")


def test_the_document_names_what_there_is(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("plate")
    for tensor in metadata["inputs"] + metadata["outputs"]:
        assert f"`{tensor['name']}`" in DOCUMENT
    for number in MOST_JSON_BYTES, MOST_JSON_LISTS:
        assert f"{number:,}" in DOCUMENT


def test_the_document_s_examples(
    address: str,
    good: Picture,
    bad: Picture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "good.png").write_bytes(good(1))
    (tmp_path / "bad.png").write_bytes(bad(1))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL):
        exec(compile(block.replace("localhost:8000", address), "docs/open_inference.md", "exec"), names)
    names["client"].close()
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["pass", "fail", "fail"]
