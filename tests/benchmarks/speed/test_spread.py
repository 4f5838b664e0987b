import pytest
from speed.spread import Spread, ratio, spread


def test_a_few_values_are_told_by_their_extremes() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0, count=3)


def test_an_outlier_among_many_does_not_move_the_quartiles() -> None:
    calm = spread([10.0, 11.0, 12.0, 13.0, 14.0])
    disturbed = spread([10.0, 11.0, 12.0, 13.0, 1400.0])
    assert calm == disturbed == Spread(median=12.0, low=11.0, high=13.0, count=5)


def test_a_ratio_is_one_of_the_same_repetitions() -> None:
    """A machine that is slower for a while slows both: the ratio stays, where one of medians would not."""
    quick, slow = [1.0, 10.0, 1.0, 10.0, 10.0], [2.0, 20.0, 2.0, 20.0, 20.0]
    assert ratio(slow, quick) == Spread(2.0, 2.0, 2.0, 5)
    assert ratio(slow[:2], quick).count == 2


def test_another_unit_scales_all_of_it() -> None:
    assert spread([2.0, 4.0, 6.0]).times(0.5) == Spread(2.0, 1.0, 3.0, 3)


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="data"):
        spread([])
