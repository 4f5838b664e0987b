"""A request that is sent again gets its first answer; its key is good for nothing else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import KeyReused, RequestInFlight
from service.idempotency import InFlight, check_same
from service.pictures import digest_of
from service.settings import Settings
from service.state import Service
from service.storage.inspections import Record
from service.uploads import Upload

POST = "/v1/categories/plate/inspections"
KEY = {"Idempotency-Key": "station 3, part 17"}
Picture = Callable[[int], bytes]


@pytest.fixture
def client(settings: Settings, database_url: str) -> TestClient:
    with TestClient(create_app(settings.model_copy(update={"database_url": database_url}))) as running:
        yield running  # type: ignore[misc]


def test_sent_again_it_is_answered_as_before(client: TestClient, good: Picture) -> None:
    first = client.post(POST, content=good(1), params={"serial": "A"}, headers=KEY)
    again = client.post(POST, files={"image": ("a.png", good(1))}, data={"serial": "A"}, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert len(client.get("/v1/inspections").json()["items"]) == 1


def test_without_a_key_every_request_is_an_inspection(client: TestClient, good: Picture) -> None:
    assert len({client.post(POST, content=good(1)).json()["id"] for _ in range(2)}) == 2


@pytest.mark.parametrize("changed", ["picture", "serial", "station"])
def test_a_key_belongs_to_one_part(client: TestClient, good: Picture, changed: str) -> None:
    told = {"serial": "A", "station": "1"}
    first = client.post(POST, content=good(1), params=told, headers=KEY)
    other = client.post(
        POST,
        content=good(2 if changed == "picture" else 1),
        params=told if changed == "picture" else told | {changed: "2"},
        headers=KEY,
    )
    assert other.status_code == 422
    assert other.json()["type"] == "urn:jigsight:problem:key-reused"
    assert first.json()["id"] in other.json()["detail"]
    assert "verdict" not in other.json()


def test_what_could_not_be_judged_may_be_sent_again(client: TestClient, good: Picture) -> None:
    assert client.post(POST, content=good(1)[:100], headers=KEY).status_code == 422
    assert client.post(POST, content=good(1), headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_what_is_no_key_is_refused(client: TestClient, good: Picture, key: str) -> None:
    assert client.post(POST, content=good(1), headers={"Idempotency-Key": key}).status_code == 422


def test_two_keys_are_refused(client: TestClient, good: Picture) -> None:
    answer = client.post(POST, content=good(1), headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert answer.status_code == 422
    assert "it is given 2 times" in answer.json()["detail"]
    assert client.get("/v1/inspections").json()["items"] == []


def test_of_many_at_once_one_is_judged(client: TestClient, good: Picture) -> None:
    start = threading.Barrier(8)

    def send(_: int) -> tuple[int, str]:
        start.wait()
        answer = client.post(POST, content=good(1), headers=KEY)
        return answer.status_code, answer.json().get("id", "")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(8)))
    ids = {found for status, found in answers if status == 201}
    assert len(ids) == 1
    assert {status for status, _ in answers} <= {201, 409}
    assert len(client.get("/v1/inspections").json()["items"]) == 1


def test_another_process_may_be_faster(client: TestClient, good: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the key unused; the database lets one of them have it, and the other answers with the first."""
    first = client.post(POST, content=good(1), headers=KEY).json()
    service: Service = client.app_state["service"]
    answered, looks = service.inspections.answered, []

    def blind_at_first(key: str, *, submitted_by: str) -> object:
        looks.append(key)
        return None if len(looks) == 1 else answered(key, submitted_by=submitted_by)

    monkeypatch.setattr(service.inspections, "answered", blind_at_first)
    again = client.post(POST, content=good(1), headers=KEY)
    assert (again.status_code, again.json()) == (201, first)
    assert len(looks) == 2


def test_keys_in_flight_are_those_of_their_senders() -> None:
    keys = InFlight()
    with keys.hold("camera 1", "a"):
        with keys.hold("camera 2", "a"), keys.hold("camera 1", None), keys.hold("camera 1", None):
            pass
        with pytest.raises(RequestInFlight, match="'a'"), keys.hold("camera 1", "a"):
            pytest.fail("one key was held twice")
    with keys.hold("camera 1", "a"):
        pass


def test_the_inspection_remembers_its_request(client: TestClient, good: Picture) -> None:
    answer = client.post(POST, content=good(1), headers=KEY | {"X-Request-ID": "cam-1:77"})
    service: Service = client.app_state["service"]
    record = service.inspections.answered(KEY["Idempotency-Key"], submitted_by="")
    assert record is not None
    assert str(record.id) == answer.json()["id"]
    assert record == replace(record, request_id="cam-1:77", submitted_by="")


@pytest.mark.parametrize("changed", ["category", "serial", "station", "picture"])
def test_all_of_a_payload_counts(make_record: Callable[..., Record], changed: str) -> None:
    first = make_record(category="plate", serial="A", station="1", image_sha256=digest_of(b"picture"))
    told = {"category": "plate", "serial": "A", "station": "1", "picture": "picture"} | {changed: "other"}
    check_same(first, "plate", Upload(b"picture", "A", "1"))
    with pytest.raises(KeyReused):
        check_same(first, told["category"], Upload(told["picture"].encode(), told["serial"], told["station"]))
