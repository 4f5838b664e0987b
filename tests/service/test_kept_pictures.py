"""Kept pictures over HTTP: listed, in a folder or in S3, until retention removes them."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import StartupError
from service.settings import Settings
from service.state import Service
from service.storage.tables import PICTURES

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def listed(client: TestClient) -> dict[str, int]:
    with running(client).database.reading() as connection:
        return {row.sha256: row.bytes for row in connection.execute(select(PICTURES))}


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_(settings: Settings, **changes: object) -> TestClient:
    return TestClient(create_app(settings.model_copy(update=changes)))


def test_a_picture_that_was_kept_is_listed_once(client: TestClient, good: Picture) -> None:
    for _ in range(2):
        assert client.post(POST, content=good(1)).status_code == 201
    assert listed(client) == {digest_of(good(1)): len(good(1))}


def test_what_is_not_kept_is_not_listed(settings: Settings, good: Picture, bad: Picture) -> None:
    with with_(settings, keep_images="rejects") as client:
        for data in (good(1), bad(1)):
            assert client.post(POST, content=data).status_code == 201
        assert set(listed(client)) == {digest_of(bad(1))}


def test_a_removed_picture_is_gone_and_its_map_is_not(settings: Settings, bad: Picture) -> None:
    with with_(settings, keep_images_days=2.0) as client:
        links = client.post(POST, content=bad(1)).json()["links"]
        retention, database = running(client).retention, running(client).database
        retention.run()
        assert client.get(links["image"]).status_code == 200
        with database.transaction() as connection:
            connection.execute(update(PICTURES).values(kept_at=datetime.now(UTC) - timedelta(days=3)))
        retention.run()
        assert retention.stats.removed_bytes == len(bad(1))
        assert listed(client) == {}
        for path in (links["image"], links["self"] + "/heatmap?style=overlay"):
            gone = client.get(path)
            assert gone.status_code == 410
            assert gone.json()["type"] == "urn:jigsight:problem:image-gone"
            assert "removed, as old pictures are" in gone.json()["detail"]
        assert client.get(links["self"] + "/heatmap?style=heat").status_code == 200
        assert client.get(links["self"]).json()["links"] == links

        again = client.post(POST, content=bad(1)).json()["links"]
        assert client.get(again["image"]).content == client.get(links["image"]).content == bad(1)


def test_a_damaged_picture_is_refused(client: TestClient, settings: Settings, bad: Picture) -> None:
    links = client.post(POST, content=bad(1)).json()["links"]
    digest = digest_of(bad(1))
    (settings.pictures / digest[:2] / digest).write_bytes(bad(2))
    for path in (links["image"], links["heatmap"]):
        answer = client.get(path)
        assert answer.status_code == 410
        assert answer.json()["type"] == "urn:jigsight:problem:image-damaged"


def test_pictures_lie_in_s3(settings: Settings, bucket: Callable[[], str], bad: Picture) -> None:
    with with_(settings, pictures_url=f"s3://{bucket()}/line") as client:
        inspection = client.post(POST, content=bad(1)).json()
        assert client.get(inspection["links"]["image"]).content == bad(1)
        assert client.get(inspection["links"]["heatmap"]).status_code == 200
        assert not settings.pictures.exists()


def test_s3_that_refuses_means_no_verdict(settings: Settings, bucket: Callable[[], str], bad: Picture) -> None:
    with with_(settings, pictures_url=f"s3://{bucket()}-not/line") as client:
        answer = client.post(POST, content=bad(1))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "verdict" not in answer.json()
        assert listed(client) == {}


def test_an_address_that_leads_nowhere_ends_the_start(settings: Settings) -> None:
    with pytest.raises(StartupError, match="JIGSIGHT_PICTURES_URL"), with_(settings, pictures_url="s3://"):
        pass
