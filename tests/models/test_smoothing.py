"""The Gaussian that smooths a score map."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.smoothing import Smoothing, kernel_radius


def random_map(b: int = 2, h: int = 20, w: int = 27) -> torch.Tensor:
    return torch.rand(b, h, w, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 4.6])
def test_it_is_scipys_gaussian_filter_with_mirrored_borders(sigma: float) -> None:
    score_map = random_map()
    peer = gaussian_filter(score_map.double().numpy(), sigma, mode="mirror", radius=kernel_radius(sigma), axes=(1, 2))
    smoothed = Smoothing(sigma)(score_map)
    assert smoothed.shape == score_map.shape
    assert smoothed.dtype == torch.float32
    assert torch.allclose(smoothed.double(), torch.from_numpy(peer), atol=1e-6)


def test_no_smoothing_leaves_the_map_alone() -> None:
    score_map = random_map()
    assert torch.equal(Smoothing(0)(score_map), score_map)


def test_the_kernel_sums_to_one_and_is_symmetric() -> None:
    for sigma in (0.0, 0.01, 1.0, 8.0):
        kernel = Smoothing(sigma).kernel
        assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
        assert torch.equal(kernel, kernel.flip(0))
        assert len(kernel) == 2 * kernel_radius(sigma) + 1


def test_a_flat_map_stays_flat() -> None:
    assert torch.allclose(Smoothing(2.0)(torch.full((1, 16, 16), 3.0)), torch.tensor(3.0))


def test_pictures_of_a_batch_do_not_mix() -> None:
    score_map = random_map(b=3)
    score_map[1] = 0
    assert not Smoothing(1.0)(score_map)[1].any()


def test_the_state_is_the_kernel_alone_and_needs_no_memory_to_be_known() -> None:
    with torch.device("meta"):
        state = Smoothing(1.0).state_dict()
    assert {name: (tensor.is_meta, tuple(tensor.shape)) for name, tensor in state.items()} == {"kernel": (True, (9,))}
