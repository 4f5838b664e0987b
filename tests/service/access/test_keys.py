"""What a key looks like, and what a key may be: names, scopes, rates and expiry."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from service.access.keys import checked_name, checked_rate, checked_scopes, digest_of, expiry, new_secret
from service.errors import KeyRefused

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)


def test_a_secret_is_256_random_bits() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch(r"jsk_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_its_digest_is_plain_sha256() -> None:
    assert digest_of("jsk_ü") == hashlib.sha256(b"jsk_\xc3\xbc").hexdigest()


@pytest.mark.parametrize("name", ["a", "line-3.camera_2", "x" * 64])
def test_names_that_a_key_may_have(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a b", "command line, root", "ü", "x" * 65, "a\n", "a\0"])
def test_names_that_it_may_not(name: str) -> None:
    with pytest.raises(KeyRefused, match=re.escape(repr(name))):
        checked_name(name)


def test_scopes() -> None:
    assert checked_scopes(["read", "inspect", "read"]) == {"read", "inspect"}
    with pytest.raises(KeyRefused, match="no scope Admin, write"):
        checked_scopes(["read", "write", "Admin"])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_rates_that_are_none(rate: float) -> None:
    assert checked_rate(20.0) == 20.0
    with pytest.raises(KeyRefused):
        checked_rate(rate)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("4w", NOW + timedelta(weeks=4)),
        ("2031-01-01", datetime(2031, 1, 1, tzinfo=UTC)),
        ("2030-05-01T13:30:00+01:00", datetime(2030, 5, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_expiry(text: str, moment: datetime) -> None:
    assert expiry(text, now=NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "0d", "-3d", "90", "90 d", "soon", "2030-13-01", "99999w" * 9, "9999-12-31T23:59:59-12:00"]
)
def test_nonsense_is_no_expiry(text: str) -> None:
    with pytest.raises(KeyRefused, match="no time for a key to expire"):
        expiry(text, now=NOW)


@pytest.mark.parametrize("text", ["2030-05-01", "2030-05-01T12:00:00+00:00"])
def test_a_key_does_not_begin_expired(text: str) -> None:
    with pytest.raises(KeyRefused, match="already"):
        expiry(text, now=NOW)
