"""Stored maps agree with the verdict and fit into half precision."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import maps


@given(
    st.floats(min_value=0.01, max_value=60000),
    st.lists(st.floats(min_value=-3e-3, max_value=3e-3), min_size=4, max_size=4),
)
def test_rounding_carries_nothing_across_the_threshold(threshold: float, shifts: list[float]) -> None:
    score_map = np.array([threshold * (1 + shift) for shift in shifts], np.float32).reshape(2, 2)
    packed = maps.pack(score_map, threshold=threshold)
    assert packed.dtype == np.float16
    above = score_map.astype(np.float64) > threshold
    np.testing.assert_array_equal(packed.astype(np.float64) > threshold, above)
    np.testing.assert_allclose(packed, score_map, rtol=2e-3, atol=1e-4)


def test_rounding_carries_nothing_across_the_pixel_threshold_either() -> None:
    score_map = np.array([[9.9999, 10.0001], [4.9999, 5.0001]], np.float32)
    packed = maps.pack(score_map, threshold=10.0, pixel_threshold=5.0)
    np.testing.assert_array_equal(packed > 10.0, [[False, True], [False, False]])
    np.testing.assert_array_equal(packed > 5.0, [[True, True], [False, True]])


def test_the_threshold_outweighs_a_pixel_threshold_beside_it() -> None:
    score_map = np.array([[1000.05]], np.float32)  # float16 knows 1000 and 1000.5
    assert maps.pack(score_map, threshold=1000.1, pixel_threshold=1000.02).tolist() == [[1000.0]]
    assert maps.pack(score_map, threshold=1000.04, pixel_threshold=1000.02).tolist() == [[1000.5]]


def test_what_is_too_large_for_half_precision_stays_finite() -> None:
    packed = maps.pack(np.array([[1e9, 1.0]], np.float32), threshold=10.0)
    assert packed.tolist() == [[65504.0, 1.0]]


def test_bytes_and_back() -> None:
    packed = np.arange(12, dtype=np.float16).reshape(3, 4)
    np.testing.assert_array_equal(maps.from_bytes(maps.to_bytes(packed), shape=(3, 4)), packed)
    np.testing.assert_array_equal(np.load(BytesIO(maps.to_npy(packed)), allow_pickle=False), packed)
    with pytest.raises(ValueError, match="reshape"):
        maps.from_bytes(maps.to_bytes(packed), shape=(3, 5))
