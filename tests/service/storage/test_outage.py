"""A database that hangs is asked by one at a time, until it answers."""

import threading

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from service.storage.outage import Hanging, Outage, Silence


class NoAnswer(Exception):
    """A driver's error that says no."""


class Silent(NoAnswer, Silence):
    """One of a wait in vain."""


def _fail(outage: Outage, error: Exception) -> None:
    with pytest.raises(type(error)), outage.noticed():
        raise error


def _let_in_beside_another(outage: Outage) -> bool:
    """Whether a second one gets in while a first one is in."""
    inside, leave = threading.Event(), threading.Event()

    def ask() -> None:
        with outage.noticed():
            inside.set()
            leave.wait(10)

    first = threading.Thread(target=ask)
    first.start()
    try:
        assert inside.wait(10)
        with outage.noticed():
            return True
    except Hanging:
        return False
    finally:
        leave.set()
        first.join()


def test_all_are_let_in_as_long_as_it_answers() -> None:
    outage = Outage()
    assert _let_in_beside_another(outage)
    _fail(outage, OperationalError("SELECT", {}, NoAnswer("no")))
    assert _let_in_beside_another(outage)


def test_one_at_a_time_asks_while_it_hangs_and_its_answer_is_everybodys() -> None:
    outage = Outage()
    _fail(outage, OperationalError("SELECT", {}, Silent("nothing")))
    assert not _let_in_beside_another(outage)  # but the first was answered
    assert _let_in_beside_another(outage)


@pytest.mark.parametrize(
    ("ending", "over"),
    [
        (OperationalError("SELECT", {}, NoAnswer("a no is an answer")), True),
        (ValueError("nothing of the database's"), True),
        (OperationalError("SELECT", {}, Silent("still nothing")), False),
        (NoConnectionFree(), False),
    ],
)
def test_what_ends_it(ending: Exception, over: bool) -> None:
    outage = Outage()
    _fail(outage, OperationalError("SELECT", {}, Silent("nothing")))
    _fail(outage, ending)
    assert _let_in_beside_another(outage) is over
