"""Batch sizes: the smallest that fits, and nothing lost where a batch is cut."""

import pytest

from models.buckets import SIZES, bucket, buckets, parts


def test_sizes_stop_where_memory_does() -> None:
    assert buckets(64) == SIZES
    assert buckets(16) == (1, 2, 4, 8, 16)
    assert buckets(3) == (1, 2)
    assert buckets(0) == (1,)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (17, 32), (32, 32)])
def test_a_batch_is_filled_up_to_the_next(count: int, size: int) -> None:
    assert bucket(count, SIZES) == size


@pytest.mark.parametrize("count", [0, 33])
def test_what_fits_none_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} pictures do not fit"):
        bucket(count, SIZES)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_a_larger_batch_is_cut_and_nothing_is_lost(count: int) -> None:
    things = list(range(count))
    cut = [things[some] for some in parts(count, SIZES)]
    assert [each for part in cut for each in part] == things
    assert all(len(part) == SIZES[-1] for part in cut[:-1])
    assert 0 < len(cut[-1]) <= SIZES[-1]
