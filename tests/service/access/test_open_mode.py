"""A service without keys: which addresses it listens on, and which requests it takes for this machine's own."""

import pytest

from service.access.open_mode import check_exposure, check_local, is_loopback
from service.errors import ForeignRequest, StartupError
from service.storage.audit import Change
from service.storage.database import Database
from service.storage.keys import Keys, NewKey

ORIGINS = ("https://mes.factory",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST", "localhost."])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.5", "camera-pc", "localhost.evil.example", "127.0.0.1.evil.example", "127.1"]
)
def test_not_certainly_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_others_can_reach_it_only_with_keys(database: Database) -> None:
    keys = Keys(database)
    check_exposure("127.0.0.1", keys)
    with pytest.raises(StartupError, match=r"not on 0\.0\.0\.0.*jigsight keys create"):
        check_exposure("0.0.0.0", keys)
    keys.create(NewKey("a", "0" * 64, frozenset({"read"})), change=Change("t", "create key", "key a"))
    check_exposure("0.0.0.0", keys)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost"},
        {"host": "LocalHost:8000"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        {"host": "[::1]:8000", "origin": "http://[::1]:8000"},
        {"host": "inspection-1:8000"},
        {"host": "localhost:8000", "origin": "https://mes.factory"},
    ],
)
def test_requests_of_this_machine(headers: dict[str, str]) -> None:
    check_local(headers, client="127.0.0.1", hosts=("inspection-1",), origins=ORIGINS)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.example"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},  # a name that was rebound
        {"host": "localhost.evil.example"},
        {"host": "[::1"},
        {"host": "127.0.0.1:8000", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:3000"},  # a page of another service
        {"host": "127.0.0.1:8000", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "http://[::1"},
        {"host": "127.0.0.1:8000", "origin": ""},
    ],
)
def test_requests_that_a_page_of_another_site_made(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignRequest, match="no API keys"):
        check_local(headers, client="127.0.0.1", hosts=("inspection-1",), origins=ORIGINS)


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "X-Forwarded-Proto", "x-real-ip", "via"])
def test_requests_that_a_proxy_of_this_machine_passes_on(header: str) -> None:
    headers = {"host": "127.0.0.1:8000", header: "10.0.0.5"}
    with pytest.raises(ForeignRequest, match=r"a proxy has passed.*jigsight keys create"):
        check_local(headers, client="127.0.0.1", hosts=("inspection-1",), origins=())
    check_local(headers | {"host": "inspection-1"}, client="10.0.0.5", hosts=("inspection-1",), origins=())


@pytest.mark.parametrize("client", ["10.0.0.5", "", "::ffff:10.0.0.5", "testclient"])
def test_requests_that_come_from_elsewhere(client: str) -> None:
    with pytest.raises(ForeignRequest, match=r"this machine only, not to .*jigsight keys create"):
        check_local({"host": "localhost"}, client=client, hosts=(), origins=())
