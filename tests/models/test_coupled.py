"""The coupled-hypersphere scorer: its descriptor, its distances and its score against plain formulas."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models import coupled
from models.coupled import Coupled, CoupledConfig, nearest, patches
from models.errors import ArtifactError
from models.mfcsam import concatenate

CHANNELS = (3, 4, 5)
GRIDS = ((8, 8), (4, 4), (2, 2))


@pytest.fixture
def config() -> CoupledConfig:
    return CoupledConfig(dimensions=6, vectors=20)


@pytest.fixture
def scorer(config: CoupledConfig) -> Coupled:
    """With random numbers where training would put its own."""
    random = torch.Generator().manual_seed(1)
    made = Coupled(config, CHANNELS, GRIDS)
    for buffer in made.buffers():
        buffer.copy_(torch.randn(buffer.shape, generator=random))
    return made


@pytest.fixture
def levels() -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(3, c, *grid, generator=random) for c, grid in zip(CHANNELS, GRIDS, strict=True)]


def test_the_descriptor_is_a_convolution_over_pooled_levels_and_coordinates(
    scorer: Coupled, levels: list[Tensor]
) -> None:
    pool = nn.AvgPool2d(3, stride=1, padding=1)
    row, column = np.mgrid[-1:1:8j, -1:1:8j]
    coordinates = torch.from_numpy(np.stack([row, column])).float().expand(3, 2, 8, 8)
    seen = torch.cat([concatenate([pool(level) for level in levels]), coordinates], dim=1)
    expected = nn.functional.conv2d(seen, scorer.weight[:, :, None, None], scorer.bias)  # (b, d', h, w)

    assert torch.allclose(scorer.embed(levels), expected.flatten(2).transpose(1, 2), atol=1e-5)


def test_a_position_is_described_by_its_row_before_its_column(levels: list[Tensor]) -> None:
    places = patches(levels)[0, :, -2:].view(8, 8, 2)

    assert places[0, 7].tolist() == [-1, 1]
    assert places[7, 0].tolist() == [1, -1]


def test_the_score_is_the_nearest_distance_times_its_softmin(scorer: Coupled, levels: list[Tensor]) -> None:
    described = scorer.embed(levels).double().numpy()
    bank = scorer.bank.double().numpy()
    expected = np.empty((3, 64))
    for image, position in np.ndindex(expected.shape):
        three = np.sort(np.linalg.norm(bank - described[image, position], axis=1))[:3]
        expected[image, position] = np.exp(-three[0]) / np.exp(-three).sum() * three[0]

    score_map = scorer(levels)

    assert score_map.dtype == torch.float32
    assert np.allclose(score_map.numpy(), expected.reshape(3, 8, 8), rtol=1e-4)


def test_a_small_distance_between_large_vectors_keeps_its_digits() -> None:
    """Products alone would give 0 or worse: float32 holds seven digits, and these differ in the twelfth."""
    bank = torch.full((4, 100), 30.0) + torch.arange(4)[:, None]
    described = bank[2:3] + 1e-3

    assert nearest(described, bank, 2)[0, 0].item() == pytest.approx(100 * 1e-6, rel=0.01)


def test_neighbours_are_ascending_and_can_be_learned_from() -> None:
    described = torch.tensor([[0.0, 0.0], [3.0, 0.0]], requires_grad=True)
    bank = torch.tensor([[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]])

    found = nearest(described, bank, 2)
    found[:, 0].sum().backward()  # type: ignore[no-untyped-call]

    assert found.tolist() == [[1.0, 9.0], [4.0, 18.0]]
    assert described.grad is not None
    assert described.grad.tolist() == [[-2.0, 0.0], [4.0, 0.0]]


def test_neither_the_batch_nor_the_size_of_a_block_changes_a_map(
    scorer: Coupled, levels: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = scorer(levels)
    monkeypatch.setattr(coupled, "_BLOCK", 7 * 20)  # seven positions of the 64

    alone = torch.cat([scorer([level[i : i + 1] for level in levels]) for i in range(3)])

    assert torch.allclose(together, alone, rtol=1e-5)


def test_its_buffers_follow_from_its_configuration_and_nothing_can_be_trained(config: CoupledConfig) -> None:
    with torch.device("meta"):
        scorer = Coupled(config, CHANNELS, GRIDS)

    assert {name: (tuple(t.shape), t.dtype) for name, t in scorer.state_dict().items()} == {
        "weight": ((6, 14), torch.float32),
        "bias": ((6,), torch.float32),
        "bank": ((20, 6), torch.float16),
    }
    assert not list(scorer.parameters())


@pytest.mark.parametrize("name", ["weight", "bank"])
def test_what_was_never_fitted_is_refused(scorer: Coupled, name: str) -> None:
    scorer.check()
    scorer.get_buffer(name)[3] = 0

    with pytest.raises(ArtifactError, match=f"scorer.{name} .* never fitted"):
        scorer.check()


def test_a_descriptor_of_places_alone_is_refused(scorer: Coupled) -> None:
    scorer.weight[3, :-2] = 0  # the last two are row and column
    with pytest.raises(ArtifactError, match=r"scorer\.weight has rows that look at no feature: .* never fitted"):
        scorer.check()


def test_sizes_that_cannot_be_are_refused(scorer: Coupled, levels: list[Tensor]) -> None:
    with pytest.raises(ValidationError, match="no 3 neighbours"):
        CoupledConfig(dimensions=6, vectors=2)
    with pytest.raises(ValueError, match="one vector a position, 64, not 65"):
        Coupled(CoupledConfig(dimensions=6, vectors=65), CHANNELS, GRIDS)
    with pytest.raises(ValueError, match=r"grid is \(4, 4\), not \(8, 8\)"):
        scorer.embed(levels[1:])
