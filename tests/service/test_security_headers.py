"""What browsers are told with every response, and which pages of other sites may ask."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

POST = "/v1/categories/plate/inspections"
STRICT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE = "https://mes.factory:8443"


@pytest.mark.parametrize("path", ["/v2/health/live", "/v1/categories", "/nowhere", "/docs", "/static-offline-docs/x"])
def test_whatever_is_answered_is_neither_framed_nor_sniffed(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("unsafe-inline" in headers["content-security-policy"]) == (path == "/docs")
    assert "access-control-allow-origin" not in headers


def test_a_failure_nobody_expected_has_them_too(settings: Settings) -> None:
    app = create_app(settings)
    app.add_api_route("/boom", lambda: 1 / 0)
    with TestClient(app) as client:
        assert client.get("/boom").headers["x-frame-options"] == "DENY"


def test_nothing_private_is_kept_in_caches(client: TestClient, bad: Callable[[int], bytes]) -> None:
    answer = client.post(POST, content=bad(1))
    links = answer.json()["links"]
    for each in (answer, *(client.get(links[name]) for name in ("self", "heatmap", "image", "category"))):
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["content-security-policy"] == STRICT
        assert len(each.headers.get_list("x-content-type-options")) == 1
    assert "cache-control" not in client.get("/static-offline-docs/swagger-ui.css").headers


def test_the_documentation_may_run_its_own_scripts_only(client: TestClient) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self' 'unsafe-inline'" in policy
    assert "http" not in policy


def test_the_documentation_works_below_a_path(settings: Settings) -> None:
    with TestClient(create_app(settings), root_path="/vision") as client:
        assert "script-src 'self'" in client.get("/vision/docs").headers["content-security-policy"]


def test_https_is_insisted_on_only_where_it_is_spoken(settings: Settings) -> None:
    assert "strict-transport-security" not in _headers(settings, "http://localhost")
    assert _headers(settings, "https://localhost")["strict-transport-security"] == "max-age=31536000"


def _headers(settings: Settings, base_url: str) -> dict[str, str]:
    with TestClient(create_app(settings), base_url=base_url) as client:
        return dict(client.get("/v2/health/live").headers)


def test_pages_of_the_settings_origins_may_ask_and_no_others(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"cors_origins": (PAGE,)}))) as client:
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = client.options(POST, headers={"Origin": PAGE, **asking})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "Authorization" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        refused = client.options(POST, headers={"Origin": "https://evil.example", **asking})
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        answer = client.get("/v1/inspections/nonsense", headers={"Origin": PAGE})  # a page must see errors too
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (422, PAGE)
        assert {"Location", "Retry-After", "X-Request-ID"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )


@pytest.mark.parametrize("origin", ["*", "mes.factory", "https://mes.factory/", "https://*.factory", "null"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValidationError):
        Settings(cors_origins=(origin,))
