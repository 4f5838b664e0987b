"""The jigsaw: which permutations, how an image is cut and reordered, and the network that names them.

Owns the permutation set, the tile shuffle with its exact inverse, and the classifier (seed, steps 2-3).
The seed draws its permutations at random; here they are chosen far apart in Hamming distance, so that
no two classes differ by a single swap that a few blank tiles would hide.
The loop that trains the classifier is `training.finetune`.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import RecipeError

_LARGEST_FULL_SEARCH = 3  # (3*3)! = 362 880 candidates are searched in full; (4*4)! is 2e13
_POOL = 20_000


def permutations(n: int, k: int, *, seed: int = 0) -> Tensor:
    """Choose `k` distinct orders of the n*n tiles, greedily as far apart as can be: (k, n*n) int64.

    The first is drawn with `seed`; each next one maximises its smallest Hamming distance to those chosen,
    then the sum of its distances. For n = 2 and 3 every one of the (n*n)! orders is a candidate; for n >= 4
    the candidates are a pool drawn with `seed`. The same arguments give the same set.
    Raises RecipeError where no such set exists.
    """
    if n < 2:
        raise RecipeError(f"jigsaw: a grid of {n}x{n} tiles cannot be reordered; use n >= 2")
    possible = math.factorial(n * n)
    if not 2 <= k <= possible:
        raise RecipeError(
            f"jigsaw: {k} permutations of {n}x{n} tiles were asked for; there are {possible}, "
            f"so use 2 <= k <= {possible}, or a finer grid"
        )
    rng = np.random.default_rng(seed)
    candidates = _every_order(n * n) if n <= _LARGEST_FULL_SEARCH else _random_orders(n * n, k, rng)
    chosen = [int(rng.integers(len(candidates)))]
    nearest = np.full(len(candidates), n * n, dtype=np.int64)
    total = np.zeros(len(candidates), dtype=np.int64)
    while len(chosen) < k:
        distance = np.count_nonzero(candidates != candidates[chosen[-1]], axis=1)
        np.minimum(nearest, distance, out=nearest)  # 0 for those already chosen
        total += distance
        furthest = np.flatnonzero(nearest == nearest.max())
        chosen.append(int(furthest[total[furthest].argmax()]))
    return torch.from_numpy(candidates[chosen].astype(np.int64))


def _every_order(tiles: int) -> np.ndarray:
    """All orders of `tiles` tiles, lexicographic: (tiles!, tiles) int16."""
    flat = itertools.chain.from_iterable(itertools.permutations(range(tiles)))
    return np.fromiter(flat, dtype=np.int16, count=math.factorial(tiles) * tiles).reshape(-1, tiles)


def _random_orders(tiles: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """A pool of distinct random orders, several times larger than `k`: (m, tiles) int16."""
    size = max(_POOL, 10 * k)
    pool = rng.permuted(np.tile(np.arange(tiles, dtype=np.int16), (size, 1)), axis=1)
    return np.unique(pool, axis=0)


def shuffle(images: Tensor, orders: Tensor) -> Tensor:
    """Reorder the tiles of each image: place i (row by row) receives tile `orders[:, i]`.

    images (b, c, h, w) of any dtype, orders (b, n*n) int64, each row a permutation, on the images' device;
    returns a new (b, c, h, w). Tiles are h//n by w//n in the centred area that they fill; the border that
    is left over, less than n pixels in all, stays where it is.
    """
    b, c, h, w = images.shape
    n = math.isqrt(orders.shape[-1])
    if orders.shape != (b, n * n):
        raise ValueError(f"orders must be ({b}, n*n), a row per image; got {tuple(orders.shape)}")
    th, tw = h // n, w // n
    if th == 0 or tw == 0:
        raise ValueError(f"images of {h}x{w} pixels cannot be cut into {n}x{n} tiles")
    rows = slice((h - n * th) // 2, (h - n * th) // 2 + n * th)
    columns = slice((w - n * tw) // 2, (w - n * tw) // 2 + n * tw)
    tiles = images[..., rows, columns].reshape(b, c, n, th, n, tw)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (b, n*n, c, th, tw)
    tiles = tiles[torch.arange(b, device=images.device)[:, None], orders]
    area = tiles.reshape(b, n, n, c, th, tw).permute(0, 3, 1, 4, 2, 5)  # (b, c, n, th, n, tw)
    shuffled = images.clone()
    shuffled[..., rows, columns] = area.reshape(b, c, n * th, n * tw)
    return shuffled


def unshuffle(images: Tensor, orders: Tensor) -> Tensor:
    """Undo `shuffle(images, orders)` exactly: unshuffle(shuffle(x, o), o) is x, bit by bit."""
    return shuffle(images, orders.argsort(dim=-1))


class JigsawClassifier(nn.Module):
    """Which of k permutations was an image shuffled by? (seed, step 2)

    `backbone` is any module that returns the levels (x1, x2, x3); `channels` are those of x3. Third level ->
    mean over positions -> one linear layer. The seed's θf are `backbone`'s parameters, θp those of `head`.
    """

    def __init__(self, backbone: nn.Module, channels: int, k: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(channels, k)

    def forward(self, images: Tensor) -> Tensor:
        """Images as the backbone takes them, (b, 3, h, w) -> logits (b, k)."""
        third: Tensor = self.backbone(images)[2]  # (b, c3, h3, w3)
        logits: Tensor = self.head(third.mean(dim=(-2, -1)))
        return logits
