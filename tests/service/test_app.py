"""What all routes share: problems, request ids, probes, categories, and documentation without the internet."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.problems import UnexpectedErrors
from service.request_id import RequestId
from service.settings import Settings
from service.state import Service


def test_nothing_is_opened_before_the_lifespan(settings: Settings) -> None:
    create_app(settings)
    assert not settings.data.exists()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/v1/categories/nowhere", 404, "unknown-category"),
        ("DELETE", "/v1/categories", 405, "method-not-allowed"),
        ("GET", "/v1/inspections/nonsense", 422, "invalid-request"),
        ("GET", "/static-offline-docs/nowhere", 404, "not-found"),
    ],
)
def test_every_error_is_a_problem(client: TestClient, method: str, path: str, status: int, kind: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, f"urn:jigsight:problem:{kind}")
    assert problem["instance"] == path
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"].endswith(".")


def test_405_says_what_is_allowed(client: TestClient) -> None:
    answer = client.delete("/v1/categories")
    assert answer.headers["allow"] == "GET"
    assert "GET" in answer.json()["detail"]


async def _explode(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("secret")


def test_what_nobody_expected_is_a_500_without_internals(caplog: pytest.LogCaptureFixture) -> None:
    answer = TestClient(RequestId(UnexpectedErrors(_explode))).get("/x", headers={"X-Request-ID": "cam-1:77"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "cam-1:77"
    assert "secret" not in answer.text
    assert "RuntimeError: secret" in caplog.text


def test_an_error_inside_a_route_is_a_500_too(settings: Settings) -> None:
    app = create_app(settings)
    app.add_api_route("/boom", lambda: 1 / 0)
    with TestClient(app) as client:
        answer = client.get("/boom")
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:jigsight:problem:internal-error"
        assert "division" not in answer.text


@pytest.mark.parametrize("wished", ["", "a b", "x" * 65, "ü", "a\tb"])
def test_request_ids_that_are_not_sane_are_replaced(client: TestClient, wished: str) -> None:
    headers = {"X-Request-ID": wished.encode()}
    given = client.get("/v2/health/live", headers=headers).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", given)


def test_live_and_ready(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_not_ready_says_why(client: TestClient, settings: Settings) -> None:
    service: Service = client.app_state["service"]
    service.engine.stop()
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "engine" in answer.json()["detail"]
    assert client.get("/v2/health/live").status_code == 200


def test_a_dead_engine_is_not_live(client: TestClient, good: Callable[[int], bytes]) -> None:
    def die(*_: object) -> None:
        raise SystemExit("as if memory had run out")

    service: Service = client.app_state["service"]
    service.registry.artifact("plate").detector.register_forward_hook(die)
    assert client.post("/v1/categories/plate/inspections", content=good(1)).status_code == 503
    service.engine.stop()  # waits for the thread's end
    answer = client.get("/v2/health/live")
    assert answer.status_code == 503
    assert "started anew" in answer.json()["detail"]
    assert client.get("/v2/health/ready").status_code == 503


def test_without_its_database_it_is_not_ready(client: TestClient, settings: Settings) -> None:
    with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
        connection.execute("ALTER TABLE inspections RENAME TO elsewhere")
    answer = client.get("/v2/health/ready")
    assert answer.status_code == 503
    assert "the database does not answer" in answer.json()["detail"]


def test_with_nothing_to_serve_it_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "plate").mkdir()
    (tmp_path / "plate" / "0123456789ab.safetensors").write_bytes(b"garbage")
    with TestClient(create_app(settings.model_copy(update={"artifacts": tmp_path}))) as client:
        answer = client.get("/v2/health/ready")
        assert answer.status_code == 503
        assert "no category is served (1 refused" in answer.json()["detail"]
        listed = client.get("/v1/categories").json()
        assert listed["categories"] == []
        assert [each["file"] for each in listed["refused"]] == ["plate/0123456789ab.safetensors"]
        assert str(tmp_path) not in listed["refused"][0]["reason"]


def test_categories_and_one_of_them(client: TestClient, artifact_path: Path) -> None:
    (category,) = client.get("/v1/categories").json()["categories"]
    assert (category["category"], category["version"]) == ("plate", artifact_path.stem)
    assert category["versions"] == [{"version": artifact_path.stem, "active": True, "newer": False}]
    assert category["activated_by"] == "jigsight"
    assert category["good_images"] == 24
    detail = client.get(category["links"]["self"]).json()
    assert detail["manifest"]["detector"]["arch"] == category["architecture"] == "resnet18"
    assert detail["threshold"] == category["threshold"]
    assert category["threshold"]["attainable_false_reject_rate"] == pytest.approx(1 / 25)


def test_the_documentation_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        assert client.get(path).status_code == 200
    assert '"validatorUrl": null' in page.text


def test_the_document_tells_errors_as_they_are_sent(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [(path, each) for path, item in document["paths"].items() for each in item.values()]
    assert len(operations) == 27
    for path, operation in operations:
        inference = path.startswith("/v2") and not path.startswith("/v2/health/")
        media_type, name = ("json", "InferenceError") if inference else ("problem+json", "Problem")
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [f"application/{media_type}"]
                schema = response["content"][f"application/{media_type}"]["schema"]
                assert schema == {"$ref": f"#/components/schemas/{name}"}
    named = set(re.findall("#/components/schemas/([A-Za-z]+)", json.dumps(document)))
    assert named == set(document["components"]["schemas"])
    post = document["paths"]["/v1/categories/{category}/inspections"]["post"]
    assert {"multipart/form-data", "image/png", "application/octet-stream"} < set(post["requestBody"]["content"])


def test_the_document_says_when_to_come_again_and_that_anything_may_fail(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert "500" in responses, (method, path)
            for status in {"409", "429", "503"} & set(responses):
                assert "Retry-After" in responses[status]["headers"], (method, path, status)
    judged = paths["/v1/categories/{category}/inspections"]["post"]["responses"]["201"]
    assert set(judged["headers"]) == {"Location", "Idempotency-Replayed"}
    assert judged["content"]["application/json"]["schema"]["$ref"].endswith("/Inspection")
    server = paths["/v2"]["get"]["responses"]["500"]
    assert server["content"]["application/json"]["schema"]["$ref"].endswith("/InferenceError")
