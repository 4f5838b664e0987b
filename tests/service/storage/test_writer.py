"""The writer: what waits is one transaction, each order is answered after its commit, and none fails another."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from service.errors import StoreUnavailable, UnknownInspection
from service.storage.database import Database
from service.storage.inspections import Addition, Inspections, Record
from service.storage.writer import Writer

MAP = np.zeros((2, 3), np.float16)


class Held(Inspections):
    """Real inspections behind a door, which notes how many come through it at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.sizes: list[int] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def add(self, added: Sequence[Addition]) -> None:
        self.sizes.append(len(added))
        self.entered.set()
        assert self.open.wait(60)
        super().add(added)


@pytest.fixture
def held(database: Database) -> Held:
    return Held(database)


def test_what_waits_is_one_transaction(held: Held, make_record: Callable[..., Record]) -> None:
    writer = Writer(held)
    writer.start()
    records = [make_record() for _ in range(7)]
    first = writer.commit([Addition(records[0], MAP)])
    assert held.entered.wait(60)
    rest = [writer.commit([Addition(record, MAP)]) for record in records[1:5]]
    pair = writer.commit([Addition(record, MAP) for record in records[5:]])
    assert not first.done()
    held.open.set()
    for order in (first, *rest, pair):
        order.result(60)
    assert held.sizes == [1, 6]
    assert [held.find(record.id) for record in records] == records
    writer.stop()


def test_a_bad_order_fails_alone_and_whole(held: Held, make_record: Callable[..., Record]) -> None:
    writer = Writer(held)
    writer.start()
    fine, taken, other, last = (make_record() for _ in range(4))
    first = writer.commit([Addition(fine, MAP)])
    assert held.entered.wait(60)
    again = writer.commit([Addition(taken, MAP), Addition(fine, MAP)])  # the id of `fine` is taken by then
    after = writer.commit([Addition(last, MAP)])
    held.open.set()
    first.result(60)
    with pytest.raises(IntegrityError):
        again.result(60)
    after.result(60)
    with pytest.raises(UnknownInspection):
        held.find(taken.id)
    writer.commit([Addition(other, MAP)]).result(60)
    assert held.find(last.id) == last
    writer.stop()


def test_stopping_commits_what_waits_and_refuses_more(held: Held, make_record: Callable[..., Record]) -> None:
    writer = Writer(held)
    writer.start()
    orders = [writer.commit([Addition(make_record(), MAP)]) for _ in range(3)]
    assert held.entered.wait(60)
    stopping = threading.Thread(target=writer.stop)
    stopping.start()
    held.open.set()
    stopping.join(60)
    assert all(order.done() and order.exception() is None for order in orders)
    assert (writer.alive, writer.died) == (False, False)
    with pytest.raises(StoreUnavailable, match="stopped"):
        writer.commit([Addition(make_record(), MAP)])


def test_a_dying_thread_answers_everybody(database: Database, make_record: Callable[..., Record]) -> None:
    class Deadly(Held):
        def add(self, added: Sequence[Addition]) -> None:
            super().add(added)
            raise SystemExit("as if the interpreter were going down")

    held = Deadly(database)
    writer = Writer(held)
    writer.start()
    orders = [writer.commit([Addition(make_record(), MAP)]) for _ in range(2)]
    held.open.set()
    for order in orders:
        with pytest.raises(StoreUnavailable):
            order.result(60)
    writer.stop()
    assert writer.died


def test_who_is_cancelled_while_waiting_is_not_stored_and_harms_nobody(
    held: Held, make_record: Callable[..., Record]
) -> None:
    writer = Writer(held)
    writer.start()
    first, gone, last = (make_record() for _ in range(3))
    begun = writer.commit([Addition(first, MAP)])
    assert held.entered.wait(60)
    waiting, after = (writer.commit([Addition(each, MAP)]) for each in (gone, last))
    assert waiting.cancel()
    assert not begun.cancel(), "its transaction has begun"
    held.open.set()
    begun.result(60)
    after.result(60)
    with pytest.raises(UnknownInspection):
        held.find(gone.id)
    assert writer.alive
    writer.stop()


def test_a_database_that_does_not_answer_is_not_asked_again(make_record: Callable[..., Record]) -> None:
    """The transaction may have been committed all the same: a second try would find its ids taken."""
    asked = []

    class Silent(Inspections):
        def __init__(self) -> None:
            self.entered, self.open = threading.Event(), threading.Event()

        def add(self, added: Sequence[Addition]) -> None:
            asked.append(len(added))
            self.entered.set()
            assert self.open.wait(60)
            raise StoreUnavailable("silence")

    silent = Silent()
    writer = Writer(silent)
    writer.start()
    orders = [writer.commit([Addition(make_record(), MAP)])]
    assert silent.entered.wait(60)
    orders += [writer.commit([Addition(make_record(), MAP)]) for _ in range(3)]
    silent.open.set()
    for order in orders:
        with pytest.raises(StoreUnavailable, match="silence"):
            order.result(60)
    assert asked == [1, 3]
    writer.stop()
