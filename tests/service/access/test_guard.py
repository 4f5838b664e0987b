"""Who is let in, by keys that change in the database meanwhile, and while the database is gone."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from service.access.guard import Guard
from service.access.keys import new_secret
from service.access.principal import ANYBODY, Principal
from service.errors import KeyExpired, RateLimited, Unauthenticated
from service.storage.audit import Change
from service.storage.database import Database
from service.storage.keys import Keys

Issue = Callable[..., str]
REVOKED = Change("tests", "revoke key", "key")


@pytest.fixture
def guard(database: Database) -> Guard:
    made = Guard(Keys(database), local=True, every=3600)
    made.refresh()
    return made


@pytest.fixture
def busy(database: Database) -> Iterator[Guard]:
    """A guard that looks all the time."""
    made = Guard(Keys(database), local=True, every=0.01)
    made.start()
    yield made
    made.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refused(guard: Guard, secret: str | None) -> bool:
    try:
        guard.admit(secret)
    except Unauthenticated:
        return True
    return False


def test_without_a_key_anybody_on_this_machine_is_let_in(guard: Guard) -> None:
    assert guard.open
    assert guard.admit(None) == guard.admit("jsk_whatever") == ANYBODY


def test_without_a_key_nobody_else_is(database: Database) -> None:
    guard = Guard(Keys(database), local=False, every=3600)
    guard.refresh()
    assert not guard.open
    assert refused(guard, None)


def test_with_a_key_only_its_holder_is(guard: Guard, database: Database, issue: Issue) -> None:
    secret = issue(database, "camera", "inspect")
    guard.refresh()
    assert not guard.open
    assert guard.admit(secret) == Principal("camera", frozenset({"inspect"}))
    for wrong in (None, "", "jsk_", new_secret(), secret[:-1], secret.lower(), f" {secret}", "ü"):
        assert refused(guard, wrong), wrong


def test_all_refusals_but_expiry_read_alike(guard: Guard, database: Database, issue: Issue) -> None:
    revoked = issue(database, "gone", "read")
    Keys(database).revoke("gone", change=REVOKED)
    guard.refresh()
    said = set()
    for secret in (None, "nonsense", new_secret(), revoked):
        with pytest.raises(Unauthenticated) as refusal:
            guard.admit(secret)
        said.add(str(refusal.value))
    assert len(said) == 1


def test_once_there_was_a_key_one_is_always_needed(guard: Guard, database: Database, issue: Issue) -> None:
    secret = issue(database, "only", "admin")
    Keys(database).revoke("only", change=REVOKED)
    guard.refresh()
    assert refused(guard, None)
    assert refused(guard, secret)
    with database.transaction() as connection:  # an older backup was put back
        connection.execute(text("DELETE FROM api_keys"))
    guard.refresh()
    assert refused(guard, None)


def test_a_key_that_has_expired_is_told_to_its_holder(guard: Guard, database: Database, issue: Issue) -> None:
    now = datetime.now(UTC)
    old = issue(database, "old", "read", expires_at=now - timedelta(seconds=1))
    young = issue(database, "young", "read", expires_at=now + timedelta(hours=1))
    guard.refresh()
    with pytest.raises(KeyExpired, match="old expired at"):
        guard.admit(old)
    assert guard.admit(young).name == "young"


def test_a_rate_limit_is_a_key_s_own_and_survives_refreshing(guard: Guard, database: Database, issue: Issue) -> None:
    slow, free = issue(database, "slow", "read", rate_limit=0.01), issue(database, "free", "read")
    guard.refresh()
    guard.admit(slow)
    guard.refresh()
    with pytest.raises(RateLimited) as refusal:
        guard.admit(slow)
    assert 90 < (refusal.value.retry_after or 0) <= 100
    for _ in range(100):
        guard.admit(free)


def test_changes_are_noticed(busy: Guard, database: Database, issue: Issue) -> None:
    secret = issue(database, "camera", "inspect")
    until(lambda: not busy.open)
    assert busy.admit(secret).name == "camera"
    Keys(database).revoke("camera", change=REVOKED)
    until(lambda: refused(busy, secret))


def test_while_the_database_is_gone_known_keys_are_accepted(
    busy: Guard, database: Database, issue: Issue, caplog: pytest.LogCaptureFixture
) -> None:
    known = issue(database, "known", "read")
    until(lambda: not busy.open)
    rename(database, "api_keys", "elsewhere")
    until(lambda: "cannot be read" in caplog.text)
    assert busy.admit(known).name == "known"
    rename(database, "elsewhere", "api_keys")
    Keys(database).revoke("known", change=REVOKED)
    until(lambda: refused(busy, known))
    assert caplog.text.count("cannot be read") == 1  # once, and not hundreds of times


def test_it_does_not_start_without_having_read_the_keys(database: Database) -> None:
    rename(database, "api_keys", "elsewhere")
    guard = Guard(Keys(database), local=True, every=0.01)
    with pytest.raises(Exception, match=r"api_keys|database"):
        guard.start()


def rename(database: Database, old: str, new: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
