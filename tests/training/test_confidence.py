import pytest
from scipy.stats import binomtest

from training.confidence import share_interval


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (1, 1), (0, 20), (1, 20), (7, 41), (41, 41), (40, 41), (500, 1000), (3, 100_000)]
)
@pytest.mark.parametrize("confidence", [0.95, 0.5, 0.999])
def test_it_is_scipys_exact_interval(count: int, total: int, confidence: float) -> None:
    peer = binomtest(count, total).proportion_ci(confidence, method="exact")
    assert share_interval(count, total, confidence=confidence) == pytest.approx(
        (peer.low, peer.high), rel=1e-7, abs=1e-12
    )


def test_none_of_twenty_leaves_room_for_a_sixth() -> None:
    low, high = share_interval(0, 20)
    assert low == 0
    assert high == pytest.approx(0.168, abs=1e-3)
    assert share_interval(20, 20) == pytest.approx((1 - high, 1))


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"{count} of {total}"):
        share_interval(count, total)
