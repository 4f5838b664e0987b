"""Permutation sets, the tile shuffle and its inverse, the classifier."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.errors import RecipeError
from models.jigsaw import JigsawClassifier, permutations, shuffle, unshuffle


def distances(orders: Tensor) -> Tensor:
    """Hamming distance of every pair, as one row."""
    return torch.stack([(a != b).sum() for a, b in itertools.combinations(orders, 2)])


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 24), (3, 30), (4, 12)])
def test_permutations_are_distinct_orders_of_all_tiles(n: int, k: int) -> None:
    orders = permutations(n, k)
    assert orders.shape == (k, n * n)
    assert orders.dtype == torch.int64
    assert torch.equal(orders.sort(dim=1).values, torch.arange(n * n).expand(k, -1))
    assert len(orders.unique(dim=0)) == k


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permutations_depend_on_the_seed_alone(n: int) -> None:
    assert torch.equal(permutations(n, 8, seed=3), permutations(n, 8, seed=3))
    assert not torch.equal(permutations(n, 8, seed=3), permutations(n, 8, seed=4))


def test_four_orders_of_four_tiles_differ_everywhere() -> None:
    assert distances(permutations(2, 4)).min() == 4


@pytest.mark.parametrize("n", [3, 4])
def test_chosen_orders_are_further_apart_than_random_ones(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(n * n, generator=generator) for _ in range(30)])
    chosen = permutations(n, 30)
    assert distances(chosen).min() >= distances(drawn).min() + 2
    assert distances(chosen).float().mean() > distances(drawn).float().mean()


def test_every_choice_maximises_the_smallest_distance() -> None:
    every = torch.tensor(list(itertools.permutations(range(4))))
    orders = permutations(2, 10)
    for count in range(1, 10):
        nearest = (every[:, None] != orders[None, :count]).sum(-1).min(dim=1).values
        assert (orders[count] != orders[:count]).sum(-1).min() == nearest.max()


@pytest.mark.parametrize(("n", "k"), [(2, 25), (3, 1), (3, 0), (1, 2), (0, 2)])
def test_impossible_sets_are_refused(n: int, k: int) -> None:
    with pytest.raises(RecipeError, match="jigsaw"):
        permutations(n, k)


def test_shuffle_puts_the_named_tile_in_each_place() -> None:
    image = torch.arange(16).reshape(1, 1, 4, 4)
    shuffled = shuffle(image, torch.tensor([[2, 0, 3, 1]]))
    tiles = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    places = [shuffled[0, 0, :2, :2], shuffled[0, 0, :2, 2:], shuffled[0, 0, 2:, :2], shuffled[0, 0, 2:, 2:]]
    assert [place.flatten().tolist() for place in places] == [tiles[2], tiles[0], tiles[3], tiles[1]]


def test_shuffle_leaves_the_centred_border_and_its_input_alone() -> None:
    images = torch.arange(2 * 3 * 11 * 8).reshape(2, 3, 11, 8)
    before = images.clone()
    orders = torch.stack([torch.arange(9).flip(0), torch.arange(9).roll(1)])
    shuffled = shuffle(images, orders)
    assert torch.equal(images, before)
    border = torch.ones(11, 8, dtype=torch.bool)
    border[1:10, 1:7] = False  # 11 = 3*3 + 2, 8 = 3*2 + 2
    assert torch.equal(shuffled[..., border], images[..., border])
    assert not torch.equal(shuffled[..., ~border], images[..., ~border])


def test_shuffle_gives_each_image_its_own_order() -> None:
    images = torch.rand(3, 3, 9, 9)
    orders = permutations(3, 3)
    together = shuffle(images, orders)
    for index in range(3):
        alone = shuffle(images[index : index + 1], orders[index : index + 1])
        assert torch.equal(together[index], alone[0])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 4), extra_h=st.integers(0, 9), extra_w=st.integers(0, 9), seed=st.integers(0, 99))
def test_unshuffle_undoes_shuffle_exactly(n: int, extra_h: int, extra_w: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 2, n + extra_h, n + extra_w, generator=generator)
    orders = torch.stack([torch.randperm(n * n, generator=generator) for _ in range(3)])
    assert torch.equal(unshuffle(shuffle(images, orders), orders), images)
    assert torch.equal(shuffle(unshuffle(images, orders), orders), images)


def test_shuffle_refuses_what_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="2x2 pixels"):
        shuffle(torch.zeros(1, 3, 2, 2), torch.arange(9)[None])
    with pytest.raises(ValueError, match="orders"):
        shuffle(torch.zeros(2, 3, 9, 9), torch.arange(9)[None])
    with pytest.raises(ValueError, match="orders"):
        shuffle(torch.zeros(1, 3, 9, 9), torch.arange(8)[None])


class TinyBackbone(nn.Module):
    """Three real levels in three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 4, stride=4)
        self.second = nn.Conv2d(4, 8, 2, stride=2)
        self.third = nn.Conv2d(8, 16, 2, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x1 = self.first(images)
        x2 = self.second(x1.relu())
        return x1, x2, self.third(x2.relu())


def test_classifier_reads_the_mean_of_the_third_level() -> None:
    torch.manual_seed(0)
    classifier = JigsawClassifier(TinyBackbone(), 16, 5)
    images = torch.rand(2, 3, 32, 32)
    pooled = classifier.backbone(images)[2].mean(dim=(2, 3))
    assert torch.allclose(classifier(images), pooled @ classifier.head.weight.T + classifier.head.bias)


def test_classifier_learns_to_name_the_permutation() -> None:
    torch.manual_seed(0)
    orders = permutations(2, 4)
    image = torch.zeros(1, 3, 32, 32)
    image[..., :16, :16], image[..., :16, 16:], image[..., 16:, :16] = 1.0, -1.0, 2.0
    images, labels = shuffle(image.repeat(4, 1, 1, 1), orders), torch.arange(4)
    images = images * torch.linspace(0.1, 1, 32)  # the mean over positions must be able to tell the places
    classifier = JigsawClassifier(TinyBackbone(), 16, 4)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(images), labels).backward()
        optimiser.step()
    assert torch.equal(classifier(images).argmax(dim=1), labels)
    assert all(parameter.grad is not None for parameter in classifier.parameters())
