import numpy as np
import numpy.typing as npt
import pytest

from training.contact_sheet import GAP, OUTLINE, contact_sheet, outlined

Example = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


def example(seed: int, shape: tuple[int, int] = (40, 60)) -> Example:
    good, synthetic = np.random.default_rng(seed).integers(0, 255, (2, *shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, dtype=np.bool_)
    mask[10:20, 30:45] = True
    return good, synthetic, mask


def places(sheet: npt.NDArray[np.uint8], tile: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Rows and columns at which `tile` lies in `sheet`, pixel for pixel."""
    height, width = tile.shape[:2]
    candidates = np.argwhere((sheet[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=2))
    return [(r, c) for r, c in candidates if np.array_equal(sheet[r : r + height, c : c + width], tile)]


def test_each_example_is_a_strip_of_three_tiles() -> None:
    examples = [example(seed) for seed in range(3)]
    sheet = contact_sheet(examples)
    assert sheet.dtype == np.uint8
    rows = []
    for good, synthetic, mask in examples:
        [(top, left)] = places(sheet, good)
        assert places(sheet, synthetic) == [(top, left + 60 + GAP)]
        assert places(sheet, outlined(synthetic, mask)) == [(top, left + 2 * (60 + GAP))]
        rows.append(top)
    assert rows == sorted(set(rows))


def test_many_examples_stand_in_two_columns() -> None:
    examples = [example(seed) for seed in range(7)]
    sheet = contact_sheet(examples)
    assert len({places(sheet, good)[0][1] for good, _, _ in examples}) == 2
    assert len({places(sheet, good)[0] for good, _, _ in examples}) == 7


def test_the_outline_lies_just_outside_the_mask() -> None:
    _, synthetic, mask = example(0)
    drawn = outlined(synthetic, mask)
    red = (drawn == OUTLINE).all(axis=2)
    expected = np.zeros_like(mask)
    expected[9:21, 29:46] = True
    np.testing.assert_array_equal(red, expected & ~mask)
    np.testing.assert_array_equal(drawn[~red], synthetic[~red])


def test_labels_are_written() -> None:
    examples = [example(0)]
    assert (contact_sheet(examples, labels=["000.png"]) != contact_sheet(examples)).any()


def test_labels_must_match_the_examples() -> None:
    with pytest.raises(ValueError, match="2 labels were given for 1 examples"):
        contact_sheet([example(0)], labels=["a", "b"])


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        contact_sheet([])
