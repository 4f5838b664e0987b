from speed.bench import rotated


def test_everyone_begins_as_often_as_the_others() -> None:
    orders = [rotated("abc", number) for number in range(6)]
    assert [order[0] for order in orders] == list("abcabc")
    assert all(sorted(order) == list("abc") for order in orders)


def test_nobody_is_in_any_order() -> None:
    assert rotated([], 3) == []
