"""Cursors: they come back as they were, and no others are taken."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import cursor
from service.errors import BadCursor
from service.storage.queries import Filters, Order

FILTERS = Filters(serial="№ 1", since=datetime(2030, 1, 1, tzinfo=UTC))


@given(number=st.integers(0, 2**63 - 1), order=st.sampled_from(["asc", "desc"]))
def test_a_cursor_comes_back(number: int, order: Order) -> None:
    text = cursor.write(number, FILTERS, order=order)
    assert (len(text), text.isascii()) == (24, True)
    assert cursor.read(text, FILTERS, order=order) == number


def test_one_moment_in_two_zones_is_one_filter() -> None:
    elsewhere = datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    text = cursor.write(7, FILTERS, order="asc")
    assert cursor.read(text, Filters(serial="№ 1", since=elsewhere), order="asc") == 7


@pytest.mark.parametrize("other", [Filters(), Filters(serial="№ 1"), Filters(station="№ 1", since=FILTERS.since)])
def test_other_filters_are_refused(other: Filters) -> None:
    with pytest.raises(BadCursor, match="other filters"):
        cursor.read(cursor.write(7, FILTERS, order="asc"), other, order="asc")


def test_another_order_is_refused() -> None:
    with pytest.raises(BadCursor, match="order=desc"):
        cursor.read(cursor.write(7, FILTERS, order="asc"), FILTERS, order="desc")


@given(st.text() | st.binary(min_size=18, max_size=18).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        cursor.read(text, FILTERS, order="asc")


def test_a_later_layout_is_refused() -> None:
    data = base64.urlsafe_b64decode(cursor.write(7, FILTERS, order="asc"))
    with pytest.raises(BadCursor, match="is no cursor"):
        cursor.read(base64.urlsafe_b64encode(b"\2" + data[1:]).decode(), FILTERS, order="asc")
