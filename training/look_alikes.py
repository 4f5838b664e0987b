"""Pictures that show nearly the same: a part that was taken twice, or a picture that was saved again with loss.

Scored by a fit that knows its twin, such a picture lies near whatever it shows. So they share a fold.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.arrays import Indices

_EDGE = 32  # pixels: little is left there of noise, and of what a JPEG lost
_NEAR = 0.15  # of the distance that a tenth of the pairs have: twins are nearer, most other parts farther (docs/log.md)
_USUAL = 0.6  # of the median distance: what a tenth of the pairs have where these are not twins themselves
_SAMPLED = 500  # pictures whose distances tell that
_AT_ONCE = 256
_MANY = 0.1  # of the pictures: so many are no chance
_NAMED = 3


def look_alikes(batches: Iterable[Tensor], keep: Tensor | None) -> Indices:
    """The group of each picture (n,), from 0 on, in batches (b, 3, S, S) uint8: those that look like its first one.

    Averaged down to 32 x 32 pixels. Where `keep`, (h, w) bool of any size, is false nothing is looked at; None: all is.
    Of parts that change little by little the last looks unlike the first, so there are two groups or more: the pairs
    within one are never half of all.
    """
    small = torch.cat([F.adaptive_avg_pool2d(batch.float(), _EDGE) for batch in batches])
    if keep is not None:
        small *= F.adaptive_max_pool2d((~keep).float().unsqueeze(0), _EDGE) == 0
    small = small.flatten(1)
    small -= small.mean(0)  # squares of what all have in common would drown small distances in rounding
    pairs = torch.pdist(small[:: -(-len(small) // _SAMPLED)])
    if not len(pairs):
        return np.zeros(len(small), np.int64)
    tenth, median = (float(pairs.kthvalue(1 + len(pairs) // share).values) for share in (10, 2))
    limit = _NEAR * max(tenth, _USUAL * median)
    group = np.arange(len(small))  # each one's first picture
    for start in range(0, len(small), _AT_ONCE):
        some = small[start : start + _AT_ONCE]
        distances = torch.cdist(some, small[: start + _AT_ONCE], compute_mode="use_mm_for_euclid_dist")
        for index, near in enumerate((distances < limit).numpy(), start):
            firsts = np.flatnonzero(near[:index] & (group[:index] == np.arange(index)))
            if len(firsts):
                group[index] = firsts[0]
    _, numbered = np.unique(group, return_inverse=True)
    return np.asarray(numbered, np.int64)


def twins(groups: Indices, paths: Sequence[Path]) -> str | None:
    """A warning where many of the pictures at `paths` look like one before them."""
    found = [
        (index, first) for index, group in enumerate(groups) if (first := int(np.argmax(groups == group))) != index
    ]
    if len(found) <= _MANY * len(groups):
        return None
    named = ", ".join(f"{paths[index].name} like {paths[first].name}" for index, first in found[:_NAMED])
    more = ", ..." if len(found) > _NAMED else ""
    return (
        f"pictures that look nearly as others do, {len(found)} of {len(groups)} ({named}{more}): two of one part say "
        "no more than one, so there are fewer than it seems. Give each part's picture once"
    )
