"""A coreset: the few points that leave none of the others far away (greedy k-center).

Each step takes the point farthest from all that were taken before. No point is then more than twice as far from
its nearest taken one as under the best choice of as many (Gonzalez, 1985). PatchCore thins its bank in this way.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_ACTIVE = 8192  # points that are followed step by step: at 128 dimensions 4 MB, which stays in the processor's cache
_BLOCK = 2**22  # distances at a time: 16 MB


@torch.inference_mode()
def k_center(points: Tensor, count: int, *, seed: int, advance: Callable[[int], None] = lambda _: None) -> Tensor:
    """Indices (count,) int64 of points (n, d) float32, in the order in which they were taken; the first by seed.

    Exact up to rounding, but only the points that may come next are followed at each step: distances to what was
    taken can only fall, so as long as the farthest of the `_ACTIVE` farthest points is farther than all the others
    were, the others' need not be known. When it no longer is, all are brought up to date by one matrix product.
    `advance` is told how many were taken. 25,088 out of 250,880 random points take 43 s on 2 threads of a busy
    machine, and less the more the points cluster: `OMP_NUM_THREADS=2 python -m timeit -n 1 -r 1 -s "import torch;
    from training.coreset import k_center; x = torch.randn(250_880, 128)" "k_center(x, 25_088, seed=0)"`.
    """
    n = len(points)
    if not 1 <= count <= n:
        raise ValueError(f"{count} points cannot be taken out of {n}")
    norms = points.square().sum(dim=1)
    first = torch.randint(n, (1,), generator=torch.Generator().manual_seed(seed)).to(points.device)
    nearest = torch.full((n,), torch.inf, device=points.device)
    taken = [first]
    left = count - 1
    advance(1)
    while left:
        _update(nearest, points, norms, taken[-1])
        taken.append(_take(nearest, points, norms, left))
        left -= len(taken[-1])
        advance(len(taken[-1]))
    return torch.cat(taken)


def _update(nearest: Tensor, points: Tensor, norms: Tensor, chosen: Tensor) -> None:
    """Lower the squared distances `nearest` (n,) to those to the newly chosen points, which get -1: never again."""
    step = max(1, _BLOCK // len(chosen))
    centres, centre_norms = points[chosen].T.contiguous(), norms[chosen]
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        compared = torch.addmm(centre_norms, points[rows], centres, alpha=-2).amin(dim=1) + norms[rows]
        torch.minimum(nearest[rows], compared.clamp_min_(0), out=nearest[rows])
    nearest[chosen] = -1


def _take(nearest: Tensor, points: Tensor, norms: Tensor, most: int) -> Tensor:
    """The next points, at least one and at most `most`: as many as the active ones can be trusted to give."""
    far, active = nearest.topk(min(_ACTIVE, len(nearest)))
    # Whoever is not active was no farther than this, and cannot have moved away.
    bound = float(far[-1]) if len(active) < len(nearest) else -torch.inf
    near, own = points[active], norms[active]
    distance, compared = far.clone(), torch.empty_like(far)
    chosen: list[Tensor] = []
    while len(chosen) < most:
        value, place = distance.max(dim=0)
        if chosen and float(value) < bound:
            break
        chosen.append(place)
        torch.addmv(own + own[place], near, near[place], alpha=-2, out=compared)
        torch.minimum(distance, compared.clamp_min_(0), out=distance)
        distance[place] = -1
    return active[torch.stack(chosen)]
