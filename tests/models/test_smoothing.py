"""The Gaussian that smooths a score map."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.errors import ArtifactError
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


def keeping(sigma: float, keep: torch.Tensor) -> Smoothing:
    smoothing = Smoothing(sigma, (keep.shape[0], keep.shape[1]))
    assert smoothing.keep is not None
    smoothing.keep.copy_(keep)
    return smoothing


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 4.6])
def test_where_nothing_is_ignored_not_a_bit_changes(sigma: float) -> None:
    score_map = 30 * random_map()
    assert torch.equal(Smoothing(sigma, (20, 27))(score_map), Smoothing(sigma)(score_map))


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.5])
def test_what_is_ignored_does_not_matter_and_is_nought(sigma: float) -> None:
    keep = torch.ones(20, 27, dtype=torch.bool)
    keep[5:12, 8:20] = False
    smoothing, score_map = keeping(sigma, keep), random_map()
    changed = score_map.masked_fill(~keep, 1000.0)
    assert torch.equal(smoothing(changed), smoothing(score_map))
    assert not smoothing(changed)[:, ~keep].any()
    assert smoothing(changed).max() <= score_map[:, keep].max() + 1e-6


def test_what_is_kept_is_averaged_over_what_is_kept() -> None:
    keep = torch.rand(20, 27, generator=torch.Generator().manual_seed(1)) > 0.4
    score_map, sigma = random_map(), 1.5
    weights = keep.double().expand(2, -1, -1).numpy()

    def peer(values: object) -> torch.Tensor:
        return torch.from_numpy(gaussian_filter(values, sigma, mode="mirror", radius=kernel_radius(sigma), axes=(1, 2)))

    wanted = (peer(score_map.double().numpy() * weights) / peer(weights))[:, keep]
    assert torch.allclose(keeping(sigma, keep)(score_map)[:, keep].double(), wanted, atol=1e-5)
    flat = keeping(sigma, keep)(torch.full((1, 20, 27), 3.0))
    assert torch.allclose(flat[:, keep], torch.tensor(3.0))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.5])
def test_made_ready_it_gives_the_same_and_what_it_was_made_from_stays(sigma: float) -> None:
    keep = torch.rand(20, 27, generator=torch.Generator().manual_seed(1)) > 0.4
    score_map, smoothing = random_map(), keeping(sigma, keep)
    ready = smoothing.ready()
    assert torch.equal(ready(score_map), smoothing(score_map))
    assert smoothing.keep is not None
    smoothing.keep.fill_(True)
    assert not ready(score_map)[:, ~keep].any()
    assert bool(smoothing(score_map)[:, ~keep].any())
    anywhere = Smoothing(sigma).ready()  # it knows no grid, so it must take any
    for h, w in ((20, 27), (9, 12)):
        assert torch.equal(anywhere(random_map(1, h, w)), Smoothing(sigma)(random_map(1, h, w)))


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_a_fault_is_not_ignored(fault: float, sigma: float) -> None:
    keep = torch.ones(20, 27, dtype=torch.bool)
    keep[2:18, 2:25] = False
    score_map = random_map()
    score_map[0, 10, 13] = fault  # out of reach of all that is kept
    assert not torch.isfinite(keeping(sigma, keep)(score_map)[0].max())


def test_all_of_the_map_ignored_is_refused() -> None:
    keep = torch.zeros(20, 27, dtype=torch.bool)
    with pytest.raises(ArtifactError, match="nothing would ever fail"):
        keeping(1.0, keep).check()
    keep[3, 4] = True
    keeping(1.0, keep).check()
    Smoothing(1.0).check()


def test_what_is_kept_is_part_of_the_state() -> None:
    with torch.device("meta"):
        state = Smoothing(1.0, (8, 9)).state_dict()
    assert (state["keep"].dtype, tuple(state["keep"].shape)) == (torch.bool, (8, 9))
    restored = Smoothing(1.0, (8, 9))
    keep = torch.eye(8, 9) > 0
    restored.load_state_dict(keeping(1.0, keep).state_dict())
    assert restored.keep is not None
    assert torch.equal(restored.keep, keep)
