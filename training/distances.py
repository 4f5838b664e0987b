"""What fitting a scorer says about the pictures it was fitted on: the distances behind the threshold."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Distances:
    """Raw maps (n, h, w) of the n good pictures, as the scorer gives them before smoothing.

    `in_sample`: under the scorer itself. `out_of_sample`: each picture under a scorer that has not seen it. None
    where they were not asked for.
    """

    in_sample: Tensor | None
    out_of_sample: Tensor | None
