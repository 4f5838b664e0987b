"""The few batch sizes that a detector runs with on a GPU: a recorded run has one shape, so batches are filled up.

What is in the rows that fill one up is never read: no step of a detector looks from one picture at another.
"""

from collections.abc import Sequence

SIZES = (1, 2, 4, 8, 16, 32)


def buckets(most: int) -> tuple[int, ...]:
    """The batch sizes up to `most`, ascending; 1 in any case."""
    return tuple(size for size in SIZES if size <= max(most, SIZES[0]))


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of ascending `sizes` that `count` pictures fit into; ValueError if there is none."""
    for size in sizes:
        if 0 < count <= size:
            return size
    raise ValueError(f"{count} pictures do not fit into a batch of {', '.join(map(str, sizes))}")


def parts(count: int, sizes: Sequence[int]) -> list[slice]:
    """`count` things in slices of the largest size, and one for what is left."""
    return [slice(start, min(start + sizes[-1], count)) for start in range(0, count, sizes[-1])]
