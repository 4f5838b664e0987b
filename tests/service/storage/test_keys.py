"""Keys in the database, and the notes of who made and revoked them."""

from datetime import UTC, datetime

import pytest

from service.errors import KeyRefused
from service.storage.audit import Audit, Change, Wanted
from service.storage.database import Database
from service.storage.keys import Keys, NewKey

EXPIRES = datetime(2040, 1, 1, tzinfo=UTC)
CAMERA = NewKey("camera", "a" * 64, frozenset({"inspect", "read"}), rate_limit=2.5, expires_at=EXPIRES)


def change(action: str) -> Change:
    return Change("command line, ann", action, "key camera")


@pytest.fixture
def keys(database: Database) -> Keys:
    made = Keys(database)
    assert not made.exist()
    made.create(CAMERA, change=change("create key"))
    return made


def actions(database: Database) -> list[str]:
    return [each.action for each in Audit(database).find(Wanted(), limit=10)]


def test_a_key_is_read_as_it_was_stored(keys: Keys, database: Database) -> None:
    assert keys.exist()
    (found,) = keys.all()
    assert (found.name, found.sha256, found.scopes) == (CAMERA.name, CAMERA.sha256, CAMERA.scopes)
    assert (found.rate_limit, found.expires_at, found.revoked_at) == (2.5, EXPIRES, None)
    assert abs((datetime.now(UTC) - found.created_at).total_seconds()) < 60
    assert actions(database) == ["create key"]


def test_a_name_is_given_once_even_after_its_key_was_revoked(keys: Keys, database: Database) -> None:
    again = NewKey("camera", "b" * 64, frozenset({"read"}))
    with pytest.raises(KeyRefused, match="named camera"):
        keys.create(again, change=change("create key"))
    keys.revoke("camera", change=change("revoke key"))
    with pytest.raises(KeyRefused, match="named camera"):
        keys.create(again, change=change("create key"))
    assert actions(database) == ["revoke key", "create key"]  # what was refused has no note


def test_revoking_is_noted_once(keys: Keys, database: Database) -> None:
    assert keys.revoke("camera", change=change("revoke key"))
    revoked_at = keys.all()[0].revoked_at
    assert revoked_at is not None
    assert not keys.revoke("camera", change=change("revoke key"))
    assert keys.all()[0].revoked_at == revoked_at
    assert actions(database) == ["revoke key", "create key"]
    assert keys.exist()


def test_a_key_that_is_not_there_cannot_be_revoked(keys: Keys, database: Database) -> None:
    with pytest.raises(KeyRefused, match="'camrea'"):
        keys.revoke("camrea", change=change("revoke key"))
    assert actions(database) == ["create key"]
