"""Keys over HTTP: how they are sent, what is answered without, and that no route was forgotten."""

import base64
import re
import uuid
from collections.abc import Callable, Iterator

import pytest
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts
from httpx2 import Response
from starlette.testclient import TestClient

from service.access.needs import Acting, needs
from service.app import create_app
from service.settings import Settings
from service.state import Service
from service.storage.audit import Change
from service.storage.keys import Keys

Issue = Callable[..., str]
Picture = Callable[[int], bytes]
POST = "/v1/categories/plate/inspections"
LOCAL = ("127.0.0.1", 50_000)

# Whoever reaches the service may know that it is there, how to talk to it, and whether it can work.
OPEN = {
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/static-offline-docs",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
}


class Keyed:
    """A running service that needs keys."""

    def __init__(self, client: TestClient, issue: Issue) -> None:
        self.client = client
        self.service: Service = client.app_state["service"]
        self._issue = issue
        self.admin = self.key("admin", "admin")

    def key(self, name: str, *scopes: str, **limits: object) -> dict[str, str]:
        """The headers of a new key."""
        secret = self._issue(self.service.database, name, *scopes, **limits)
        self.service.guard.refresh()
        return {"Authorization": f"Bearer {secret}"}

    def get(self, path: str, headers: dict[str, str] | None = None) -> Response:
        return self.client.get(path, headers=headers)


@pytest.fixture
def keyed(client: TestClient, issue: Issue) -> Keyed:
    return Keyed(client, issue)


def test_no_route_was_forgotten(keyed: Keyed) -> None:
    asked = set()
    for route in iter_route_contexts(keyed.client.app.routes):  # type: ignore[attr-defined]
        if route.path in OPEN:
            continue
        path = re.sub(r"\{[^}]+\}", str(uuid.uuid4()), route.path)
        for method in set(route.methods or ()) - {"HEAD"}:
            answer = keyed.client.request(method, path)
            assert answer.status_code == 401, f"{method} {path} needs no scope"
            broken = keyed.client.request(method, path, content=b"{", headers={"Content-Type": "application/json"})
            assert broken.status_code == 401, f"{method} {path} reads the body of whoever has no key"
            asked.add((method, route.path))
    assert ("POST", "/v1/categories/{category}/inspections") in asked
    assert len(asked) >= 7


def test_open_routes_are_open(keyed: Keyed) -> None:
    for path in ("/openapi.json", "/docs", "/v2/health/live", "/v2/health/ready"):
        assert keyed.get(path).status_code == 200


def test_a_key_may_be_sent_in_two_ways(keyed: Keyed) -> None:
    secret = keyed.key("reader", "read")["Authorization"].removeprefix("Bearer ")
    for headers in (
        {"Authorization": f"Bearer {secret}"},
        {"authorization": f"bearer {secret}"},
        {"X-API-Key": secret},
        {"X-API-Key": secret, "Authorization": "Basic cHJveHk6cHJveHk="},  # a proxy's own
    ):
        assert keyed.get("/v1/categories", headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer jsk_wrong"},
        {"Authorization": "Basic YTpi"},
        {"X-API-Key": ""},
        {"X-API-Key": "ü".encode()},
        {"X-API-Key": "x" * 5000},
    ],
)
def test_a_refusal_says_what_to_do_and_not_why(keyed: Keyed, headers: dict[str, str]) -> None:
    answer = keyed.get("/v1/categories", headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    problem = answer.json()
    assert problem["type"] == "urn:jigsight:problem:unauthenticated"
    assert problem["detail"] == keyed.get("/v1/categories").json()["detail"]
    assert "jigsight keys create" in problem["detail"]


def test_scopes(keyed: Keyed, good: Picture) -> None:
    inspection = keyed.client.post(POST, content=good(1), headers=keyed.admin).json()["links"]["self"]

    def statuses(headers: dict[str, str]) -> tuple[int, ...]:
        posted = keyed.client.post(POST, content=good(1), headers=headers)
        paths = (inspection, f"{inspection}/heatmap", f"{inspection}/image", "/v1/categories", "/v1/categories/plate")
        gotten = [keyed.get(path, headers).status_code for path in paths]
        assert len(set(gotten)) == 1
        return posted.status_code, gotten[0], keyed.get("/v1/audit", headers).status_code

    assert statuses(keyed.admin) == (201, 200, 200)
    assert statuses(keyed.key("camera", "inspect")) == (201, 403, 403)
    assert statuses(keyed.key("mes", "read")) == (403, 200, 403)
    assert statuses(keyed.key("cell", "inspect", "read")) == (201, 200, 403)


def test_a_missing_scope_is_named(keyed: Keyed) -> None:
    answer = keyed.get("/v1/audit", keyed.key("mes", "read"))
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:jigsight:problem:scope-missing"
    assert "mes lacks the scope `admin`" in answer.json()["detail"]


def test_whoever_may_not_post_is_told_before_the_picture_is_judged(keyed: Keyed) -> None:
    assert keyed.client.post(POST, content=b"nonsense").status_code == 401
    assert keyed.client.post(POST, content=b"nonsense", headers=keyed.key("mes", "read")).status_code == 403
    assert keyed.client.post("/v1/categories/nowhere/inspections", content=b"nonsense").status_code == 401


def test_too_many_requests(keyed: Keyed) -> None:
    slow = keyed.key("slow", "read", rate_limit=0.01)
    assert keyed.get("/v1/categories", slow).status_code == 200
    answer = keyed.get("/v1/categories", slow)
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert 90 < int(answer.headers["retry-after"]) <= 100
    assert "slow may ask 0.01 times a second" in answer.json()["detail"]


def test_each_picture_of_an_inference_is_a_request(keyed: Keyed, good: Picture) -> None:
    camera = keyed.key("camera", "inspect", rate_limit=0.1)
    picture = base64.b64encode(good(1)).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [3], "data": [picture] * 3}
    assert keyed.client.post("/v2/models/plate/infer", json={"inputs": [tensor]}, headers=camera).status_code == 200
    answer = keyed.client.post(POST, content=good(1), headers=camera)
    assert answer.status_code == 429
    assert 20 < int(answer.headers["retry-after"]) <= 30


def test_a_revoked_key_is_as_good_as_none(keyed: Keyed) -> None:
    mes = keyed.key("mes", "read")
    Keys(keyed.service.database).revoke("mes", change=Change("tests", "revoke key", "key mes"))
    keyed.service.guard.refresh()
    assert keyed.get("/v1/categories", mes).json()["detail"] == keyed.get("/v1/categories").json()["detail"]


def test_a_service_without_keys_is_no_prey_of_web_pages(settings: Settings, good: Picture) -> None:
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000", client=LOCAL) as client:
        assert client.post(POST, content=good(1)).status_code == 201
        assert client.post(POST, content=good(1), headers={"Origin": "http://127.0.0.1:8000"}).status_code == 201
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            for answer in (
                client.post(POST, content=good(1), headers=headers),
                client.get("/v1/audit", headers=headers),
            ):
                assert answer.status_code == 403
                assert answer.json()["type"] == "urn:jigsight:problem:foreign-request"


def test_without_keys_nobody_comes_in_through_a_proxy(settings: Settings) -> None:
    app = create_app(settings)
    with TestClient(app, base_url="http://localhost", client=LOCAL) as client:
        assert client.get("/v1/audit").status_code == 200
        for header in ("Forwarded", "X-Forwarded-For"):
            answer = client.get("/v1/audit", headers={header: "10.0.0.5"})
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:jigsight:problem:foreign-request")
    with TestClient(app, base_url="http://localhost", client=("10.0.0.5", 50_000)) as client:
        assert client.get("/v1/audit").status_code == 403


def test_with_keys_any_name_will_do(settings: Settings, issue: Issue) -> None:
    with TestClient(create_app(settings), base_url="http://inspection.factory") as client:
        assert client.get("/v1/categories").status_code == 403
        keyed = Keyed(client, issue)
        assert keyed.get("/v1/categories").status_code == 401
        assert keyed.get("/v1/categories", keyed.admin).status_code == 200


async def _who(acting: Acting) -> str:
    return acting.name


def test_a_router_s_needs_and_a_route_s_cost_one_request_together(settings: Settings, issue: Issue) -> None:
    app = create_app(settings)
    router = APIRouter(prefix="/x", dependencies=[needs("read")])
    router.add_api_route("/admin", _who, dependencies=[needs("admin")])
    app.include_router(router)
    with TestClient(app) as client:
        keyed = Keyed(client, issue)
        assert keyed.get("/x/admin", keyed.key("boss", "admin", rate_limit=0.01)).json() == "boss"
        assert keyed.get("/x/admin", keyed.key("mes", "read")).status_code == 403
        security = keyed.get("/openapi.json").json()["paths"]["/x/admin"]["get"]["security"]
        assert security == [{"bearer": ["admin"]}, {"header": ["admin"]}]


def test_any_one_of_several_scopes_will_do(settings: Settings, issue: Issue) -> None:
    app = create_app(settings)
    app.add_api_route("/x", _who, dependencies=[needs("inspect", "read")])
    with TestClient(app) as client:
        keyed = Keyed(client, issue)
        for scope in ("inspect", "read", "admin"):
            assert keyed.get("/x", keyed.key(f"only-{scope}", scope)).json() == f"only-{scope}"
        security = keyed.get("/openapi.json").json()["paths"]["/x"]["get"]["security"]
        assert {(name, *roles) for way in security for name, roles in way.items()} == {
            (name, scope) for name in ("bearer", "header") for scope in ("inspect", "read")
        }
        assert len(security) == 4


def test_nobody_acts_where_no_scope_is_needed(settings: Settings) -> None:
    app = create_app(settings)
    app.add_api_route("/x", _who)
    with TestClient(app) as client:
        assert client.get("/x").status_code == 500


@pytest.fixture
def outward(settings: Settings) -> Iterator[TestClient]:
    """A service that others can reach, started past the command's check."""
    with TestClient(create_app(settings.model_copy(update={"host": "0.0.0.0"}))) as client:
        yield client


def test_where_others_can_reach_it_a_key_is_needed_even_if_there_is_none(outward: TestClient) -> None:
    assert outward.get("/v1/categories").status_code == 401


def test_the_document_says_who_may(keyed: Keyed) -> None:
    document = keyed.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] | {"description": ""} == {"type": "http", "scheme": "bearer", "description": ""}
    assert (schemes["header"]["in"], schemes["header"]["name"]) == ("header", "X-API-Key")
    for path, item in document["paths"].items():
        for operation in item.values():
            if path in OPEN:
                assert "security" not in operation
                continue
            assert {"401", "403", "429"} < set(operation["responses"])
            ways = {name for way in operation["security"] for name in way}
            assert ways == {"bearer", "header"}
    post = document["paths"]["/v1/categories/{category}/inspections"]["post"]
    assert post["security"] == [{"bearer": ["inspect"]}, {"header": ["inspect"]}]
    assert post["description"].endswith("Needs the scope `inspect`.")
