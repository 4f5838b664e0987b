"""Products of bfloat16 numbers, added in float32, on CPUs.

Processors have an instruction for it, twice as fast as one for products of float32, and torch has an operator for GPUs
alone: on CPUs it rounds sums to bfloat16. Products of bfloat16 are exact in float32, but for those that are too small
for it, which are 0.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch import Tensor

from models.loops.compiled import compiled, warm_up
from models.loops.integer_products import repeated, sums_of

_LANES = 16  # sums in a register
_PAIR = 2  # of which numbers each takes at a time
_ROWS, _WIDE = 8, 2  # sums of a tile: as many rows, and registers in each; sixteen, and what is multiplied fits beside
_COLUMNS = _WIDE * _LANES
_FEATURE, _INSTRUCTION = "avx512bf16", "llvm.x86.avx512bf16.dpbf16ps.512"

_int, _long, _single = ir.IntType(32), ir.IntType(64), ir.FloatType()
_pairs, _sums = ir.VectorType(_int, _LANES), ir.VectorType(_single, _LANES)


@cache
def ready() -> bool:
    """Compile what `gram` runs, unless it has been; False where the processor has no such instruction."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()  # of what numba compiles for
    return f"+{_FEATURE}" in features.split(",") and warm_up(lambda: gram(torch.zeros(1, 1, 1, dtype=torch.bfloat16)))


def gram(z: Tensor) -> Tensor:
    """Z·Zᵀ of each matrix, (p, n, k) bfloat16 -> (p, n, n) float32, in this thread. Where it is `ready`."""
    n, k = z.shape[1:]
    missing = k % _PAIR, -n % _COLUMNS
    panels = _panels(F.pad(z, (0, missing[0], 0, missing[1])) if any(missing) else z)
    found = torch.empty(len(z), panels.shape[1] * _LANES, panels.shape[1] * _LANES)
    _grams(panels.numpy(), found.numpy())
    return found[:, :n, :n]


def _panels(z: Tensor) -> Tensor:
    """(p, n, k) bfloat16 -> (p, n / 16, k / 2, 16) int32: pairs of numbers, of sixteen rows beside one another."""
    pairs: Tensor = z.contiguous().view(torch.int32).unflatten(1, (-1, _LANES))
    return pairs.transpose(2, 3).contiguous()


@compiled
def _grams(panels: Any, found: Any) -> None:
    """Found (p, n, n) float32 becomes what the panels are of."""
    count, pairs = panels.shape[1:3]
    n, panel = count * _LANES, pairs * _LANES
    for each in range(len(panels)):
        first, whole = each * count * panel, each * n * n
        for column in range(0, n, _COLUMNS):
            right = first + column // _LANES * panel
            for row in range(0, column + _COLUMNS, _ROWS):
                left = first + row // _LANES * panel + row % _LANES
                _put_tile(panels, left, right, pairs, found, whole + row * n + column, n)
            for row in range(column, column + _COLUMNS):  # below the diagonal is what is above it
                for other in range(column):
                    found[each, row, other] = found[each, other, row]


def _tile(  # numba passes their types
    _: Any,
    panels: Any,
    left: Any,  # noqa: ARG001
    right: Any,  # noqa: ARG001
    pairs: Any,  # noqa: ARG001
    found: Any,
    at: Any,  # noqa: ARG001
    width: Any,  # noqa: ARG001
) -> Any:
    """A tile of `found` becomes the products of 8 rows with 32, in code that checks nothing.

    The rows' first pairs lie from number `left` and from number `right` of `panels` on, the tile begins at number `at`
    and in each of its rows `width` numbers further on. There is at least one pair.
    """
    numbers = types.int64
    asked = types.void(panels, numbers, numbers, numbers, found, numbers, numbers)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if f"+{_FEATURE}" not in context.codegen().magic_tuple()[2].split(","):  # what LLVM cannot do ends the process
            raise RuntimeError(f"numba compiles for a processor without {_FEATURE}")
        data = {i: context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 4)}
        _, left, right, pairs, _, at, width = arguments
        panel = builder.mul(pairs, _long(_LANES))
        starts = [builder.add(right, builder.mul(panel, _long(column))) for column in range(_WIDE)]
        columns = [builder.gep(data[0], [start]) for start in starts]
        tile = builder.gep(data[4], [at])
        lines = [builder.gep(tile, [builder.mul(width, _long(row))]) for row in range(_ROWS)]
        places = [
            builder.bitcast(builder.gep(line, [_long(column * _LANES)]), _sums.as_pointer())
            for line in lines
            for column in range(_WIDE)
        ]
        _loop(builder, builder.gep(data[0], [left]), columns, pairs, places)
        return context.get_dummy_value()

    return asked, generate


_put_tile: Any = intrinsic(_tile)


def _loop(
    builder: ir.IRBuilder, rows: ir.Value, columns: list[ir.Value], pairs: ir.Value, places: list[ir.Value]
) -> None:
    """Round i multiplies pair i of each row by pair i of all columns; the sums stay in registers."""
    instruction = builder.module.declare_intrinsic(_INSTRUCTION, (), ir.FunctionType(_sums, [_sums, _pairs, _pairs]))

    def add(i: ir.Value, totals: Sequence[ir.Value]) -> list[ir.Value]:
        here = builder.mul(i, _long(_LANES))
        starts = [builder.bitcast(builder.gep(each, [here]), _pairs.as_pointer()) for each in columns]
        some = [builder.load(start, align=4) for start in starts]
        added = []
        for row in range(_ROWS):
            pair = builder.load(builder.gep(rows, [builder.add(here, _long(row))]), align=4)
            everywhere = repeated(builder, pair, _LANES)
            for column in range(_WIDE):
                added.append(builder.call(instruction, [totals[row * _WIDE + column], everywhere, some[column]]))
        return added

    for place, total in zip(places, sums_of(builder, add, [_sums] * len(places), rounds=pairs), strict=True):
        builder.store(total, place, align=4)
