import torch

from models.neighbours import compare, squared_distances


def test_comparing_orders_vectors_by_their_distance() -> None:
    patches, vectors = torch.rand(7, 5, dtype=torch.float64), torch.rand(40, 5, dtype=torch.float64)
    assert torch.equal(compare(patches, vectors).argsort(dim=1), torch.cdist(patches, vectors).argsort(dim=1))


def test_distances_are_exact_where_a_product_would_lose_them() -> None:
    patches = torch.full((2, 3), 1000.0)
    vectors = torch.stack([patches, patches + 2**-8], dim=1)  # (2, 2, 3)
    assert squared_distances(patches, vectors).tolist() == [[0, 3 * 2**-16]] * 2
