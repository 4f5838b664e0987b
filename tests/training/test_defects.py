import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DatasetError
from training.defects import AREA, circular_gradient, noise_mask, poisson_noise, synthesise
from training.textures import ProceduralTextures

SIZE = 96
EVERYWHERE = np.ones((SIZE, SIZE), dtype=np.bool_)


class Plain:
    """Textures of a single colour, so that what was blended in can be told from the result."""

    def __init__(self, *colour: int) -> None:
        self.colour = colour

    def draw(self, rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:  # noqa: ARG002
        return np.full((size, size, 3), self.colour, dtype=np.uint8)


def photo(seed: int = 0, shape: tuple[int, int] = (SIZE, SIZE)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 200, (*shape, 3), dtype=np.uint8)


def test_poisson_noise_has_poisson_counts_at_its_lattice() -> None:
    """At a pitch of one pixel nothing is interpolated: mean and variance both equal the rate."""
    counts = poisson_noise(np.random.default_rng(0), (200, 300), pitch=1, rate=3.0)
    assert counts.shape == (200, 300)
    assert counts.min() >= 0
    assert counts.mean() == pytest.approx(3.0, abs=0.05)
    assert counts.var() == pytest.approx(3.0, abs=0.1)
    np.testing.assert_array_equal(counts, np.round(counts))


def test_a_wider_lattice_gives_coarser_noise() -> None:
    fine, coarse = (poisson_noise(np.random.default_rng(1), (96, 96), pitch=pitch, rate=4.0) for pitch in (2, 16))
    assert np.abs(np.diff(fine, axis=1)).mean() > 4 * np.abs(np.diff(coarse, axis=1)).mean()


def test_the_gradient_follows_its_formula() -> None:
    height, width, xp, yp, scale = 40, 60, 0.3, 0.7, 0.2
    gradient = circular_gradient((height, width), centre=(xp, yp), scale=scale)
    for row, column in [(0, 0), (28, 18), (39, 59), (10, 45)]:
        x, y = (column + 0.5) / width, (row + 0.5) / height
        expected = np.exp(-(((x - xp) / scale) ** 2 + ((y - yp) / scale) ** 2))
        assert gradient[row, column] == pytest.approx(expected, rel=1e-4)
    assert np.unravel_index(gradient.argmax(), gradient.shape) in [(27, 17), (28, 17), (27, 18), (28, 18)]
    assert gradient.max() <= 1


def test_noise_masks_come_in_all_sizes_around_their_centre() -> None:
    rng = np.random.default_rng(0)
    masks = [noise_mask(rng, (SIZE, SIZE), centre=(0.25, 0.75)) for _ in range(200)]
    shares = np.array([mask.mean() for mask in masks])
    assert shares.max() <= AREA[1] * 1.05
    assert (shares < 0.004).mean() > 0.15
    assert (shares > 0.03).mean() > 0.15
    rows, columns = np.nonzero(sum(mask.astype(int) for mask in masks) > 20)
    assert rows.mean() == pytest.approx(0.75 * SIZE, abs=4)
    assert columns.mean() == pytest.approx(0.25 * SIZE, abs=4)


def test_noise_masks_are_ragged() -> None:
    """Their outline is longer than that of a disc of the same area."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(50):
        mask = noise_mask(rng, (224, 224), centre=(0.5, 0.5))
        outline = (
            np.diff(mask.astype(int), axis=0).astype(bool).sum() + np.diff(mask.astype(int), axis=1).astype(bool).sum()
        )
        ratios.append(outline / (8 * np.sqrt(mask.sum() / np.pi)))  # a disc's pixel outline is 8 radii
    assert np.median(ratios) > 1.3


def test_the_same_state_gives_the_same_bytes() -> None:
    one, other = (synthesise(photo(), EVERYWHERE, ProceduralTextures(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)
    changed = synthesise(photo(), EVERYWHERE, ProceduralTextures(), np.random.default_rng(6))
    assert (changed.mask != one.mask).any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    top=st.integers(0, 60),
    left=st.integers(0, 80),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_a_defect_lies_on_the_part_and_nowhere_else(seed: int, top: int, left: int, height: int, width: int) -> None:
    rgb, foreground = photo(shape=(64, 96)), np.zeros((64, 96), dtype=np.bool_)
    foreground[top : top + height, left : left + width] = True
    before = rgb.copy()
    made = synthesise(rgb, foreground, Plain(255, 0, 255), np.random.default_rng(seed))
    assert made.mask.any()
    assert not (made.mask & ~foreground).any()
    np.testing.assert_array_equal(made.image[~made.mask], rgb[~made.mask])
    assert (made.image[made.mask] != rgb[made.mask]).any()
    np.testing.assert_array_equal(rgb, before)


def test_the_blend_is_the_seeds() -> None:
    """I' = (1 - b) I + b D inside the mask, one b for each defect, spread over [0.15, 1]."""
    opacities = []
    for seed in range(80):
        rgb = photo(seed)
        made = synthesise(rgb, EVERYWHERE, Plain(250, 5, 250), np.random.default_rng(seed))
        good, stuff = rgb[made.mask].astype(float), np.array([250.0, 5.0, 250.0])
        shares = (made.image[made.mask] - good) / (stuff - good)
        assert np.ptp(shares) < 0.04  # rounding to whole levels
        opacities.append(shares.mean())
    assert 0.14 < min(opacities) < 0.25
    assert 0.9 < max(opacities) < 1.01


def test_a_grey_picture_stays_grey() -> None:
    rgb = np.repeat(photo()[:, :, :1], 3, axis=2)
    made = synthesise(rgb, EVERYWHERE, Plain(250, 0, 90), np.random.default_rng(0))
    assert np.ptp(made.image.astype(int), axis=2).max() == 0
    assert (made.image != rgb).any()


def test_no_foreground_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"No foreground.*--kind texture"):
        synthesise(photo(), ~EVERYWHERE, ProceduralTextures(), np.random.default_rng(0))


def test_a_foreground_of_another_size_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"\(96, 95\).*\(96, 96\)"):
        synthesise(photo(), EVERYWHERE[:, 1:], ProceduralTextures(), np.random.default_rng(0))
