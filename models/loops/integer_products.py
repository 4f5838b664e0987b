"""Sums of products of whole numbers, for several vectors at a time: what processors have an instruction for.

It multiplies 16-bit numbers by 16-bit numbers and adds neighbouring products into 32 bits. A compiler does not find it
in loops, so it is asked for by name where the processor has it, and written out where it has not: both are exact.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16  # directions that are multiplied with a vector at the same time
PAIR = 2  # of each of them, as many numbers

# Directions (32 x int16) and two numbers of z in an int32 -> what they add to the sums.
_Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]
_byte, _short, _int, _long = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_sums = ir.VectorType(_int, LANES)


class _Way(NamedTuple):
    """`at_once`: for how many vectors there are registers for the sums."""

    emit: _Emit
    at_once: int


class _Given(NamedTuple):
    """What `_products` says, arrays as the addresses of their numbers."""

    z: ir.Value
    row: ir.Value
    at: ir.Value
    directions: ir.Value
    start: ir.Value
    pairs: ir.Value
    ahead: ir.Value
    sums: ir.Value


def _products(vectors: int) -> Any:
    """A function (z, row, at, directions, start, pairs, ahead, sums) for compiled code, which checks nothing.

    Rows `row`, `row` + 1, ... of `sums` (b, LANES) int32 become the sums of products of `pairs` pairs, from number `at`
    on, of the same rows of z (b, 2k) int16, with LANES directions, int8, which lie from number `start` of
    `directions` on: (pairs, LANES, PAIR). What lies `ahead` numbers further on is asked for meanwhile. There are as
    many rows as the function's name says, and at least one pair; sums have 32 bits.
    """

    @intrinsic
    def function(  # numba passes their types
        _: Any,
        z: Any,
        row: Any,  # noqa: ARG001
        at: Any,  # noqa: ARG001
        directions: Any,
        start: Any,  # noqa: ARG001
        pairs: Any,  # noqa: ARG001
        ahead: Any,  # noqa: ARG001
        sums: Any,
    ) -> Any:
        numbers = types.int64
        asked = types.void(z, numbers, numbers, directions, numbers, numbers, numbers, sums)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            def array(number: int) -> Any:
                return context.make_array(signature.args[number])(context, builder, arguments[number])

            given = _Given(*arguments)._replace(z=array(0).data, directions=array(3).data, sums=array(7).data)
            length = builder.lshr(builder.extract_value(array(0).shape, 1), _long(1))
            way = _way(*context.codegen().magic_tuple())
            for first in range(0, vectors, way.at_once):
                some = given._replace(row=builder.add(given.row, _long(first)))
                _loop(builder, some, length, vectors=min(vectors - first, way.at_once), emit=way.emit)
            return context.get_dummy_value()

        return asked, generate

    return function


products_of_one, products_of_two, products_of_four, products_of_eight = map(_products, (1, 2, 4, 8))


def _loop(builder: ir.IRBuilder, given: _Given, length: ir.Value, *, vectors: int, emit: _Emit) -> None:
    """Round i multiplies pair i of each vector by pair i of each direction; the sums stay in registers.

    A row of z has `length` pairs.
    """
    numbers = builder.gep(builder.bitcast(given.directions, _byte.as_pointer()), [given.start])
    two = builder.bitcast(given.z, _int.as_pointer())  # numbers of z at a time
    rows = [builder.add(given.row, _long(j)) for j in range(vectors)]
    vectors_there = [builder.gep(two, [builder.add(builder.mul(row, length), given.at)]) for row in rows]

    def add(i: ir.Value, totals: Sequence[ir.Value]) -> list[ir.Value]:
        here = builder.gep(numbers, [builder.mul(i, _long(LANES * PAIR))])
        _fetch(builder, builder.gep(here, [given.ahead]))
        eight_bits = builder.load(builder.bitcast(here, ir.VectorType(_byte, LANES * PAIR).as_pointer()), align=1)
        some = builder.sext(eight_bits, ir.VectorType(_short, LANES * PAIR))
        return [
            builder.add(total, emit(builder, some, builder.load(builder.gep(vector, [i]), align=2)))
            for vector, total in zip(vectors_there, totals, strict=True)
        ]

    for row, total in zip(rows, sums_of(builder, add, [_sums] * vectors, rounds=given.pairs), strict=True):
        there = builder.gep(given.sums, [builder.mul(row, _long(LANES))])
        builder.store(total, builder.bitcast(there, _sums.as_pointer()), align=4)


def sums_of(
    builder: ir.IRBuilder,
    add: Callable[[ir.Value, Sequence[ir.Value]], Sequence[ir.Value]],
    kinds: Sequence[ir.Type],
    *,
    rounds: ir.Value,
) -> Sequence[ir.Value]:
    """What sums of these kinds, at first zero, have become after `rounds` rounds, at least one; they stay in registers.

    `add` writes round i: from the sums before it to those after it.
    """
    before, body, after = builder.block, builder.append_basic_block("pairs"), builder.append_basic_block("summed")
    builder.branch(body)
    builder.position_at_end(body)
    i, totals = builder.phi(_long), [builder.phi(kind) for kind in kinds]
    added = add(i, totals)
    further = builder.add(i, _long(1))
    for total, later in zip(totals, added, strict=True):
        total.add_incoming(ir.Constant(total.type, None), before)
        total.add_incoming(later, body)
    i.add_incoming(_long(0), before)
    i.add_incoming(further, body)
    builder.cbranch(builder.icmp_signed("<", further, rounds), body, after)
    builder.position_at_end(after)
    return added


def _fetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for what lies there; the processor waits for nothing, and may be given any address."""
    kind = ir.FunctionType(ir.VoidType(), [address.type, _int, _int, _int])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
    read, near, data = _int(0), _int(2), _int(1)
    builder.call(prefetch, [address, read, near, data])


def _way(triple: str, _: str, features: str) -> _Way:
    """How a processor multiplies that LLVM describes in this way."""
    if sys.byteorder != "little":
        raise RuntimeError("two numbers are read as one, the first of which is its lower half")
    has, lacks = ({each[1:] for each in features.split(",") if each[:1] == sign} for sign in "+-")
    if "avx512bw" in has and not lacks & {"avx512bw", "avx512f"}:  # what LLVM cannot do ends the process
        return _Way(_by_instruction("llvm.x86.avx512.pmaddw.d.512", parts=1), at_once=8)
    if "avx2" in has and not lacks & {"avx2", "avx"}:
        return _Way(_by_instruction("llvm.x86.avx2.pmadd.wd", parts=2), at_once=4)
    if triple.startswith("x86_64"):
        return _Way(_by_instruction("llvm.x86.sse2.pmadd.wd", parts=4), at_once=2)
    return _Way(_written_out, at_once=4)


def _by_instruction(name: str, *, parts: int) -> _Emit:
    wide = LANES * PAIR // parts
    taken, given = ir.VectorType(_short, wide), ir.VectorType(_int, wide // PAIR)

    def emit(builder: ir.IRBuilder, some: ir.Value, two: ir.Value) -> ir.Value:
        instruction = builder.module.declare_intrinsic(name, (), ir.FunctionType(given, [taken, taken]))
        everywhere = builder.bitcast(repeated(builder, two, wide // PAIR), taken)
        found = [
            builder.call(instruction, [_chosen(builder, some, range(part * wide, (part + 1) * wide)), everywhere])
            for part in range(parts)
        ]
        while len(found) > 1:
            length = found[0].type.count
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [builder.shuffle_vector(*pair, _indices(range(2 * length))) for pair in pairs]
        return found[0]

    return emit


def _written_out(builder: ir.IRBuilder, some: ir.Value, two: ir.Value) -> ir.Value:
    first, second = (
        builder.mul(
            builder.sext(_chosen(builder, some, range(at, LANES * PAIR, PAIR)), _sums),
            repeated(builder, builder.ashr(builder.shl(two, _int(shift)), _int(16)), LANES),
        )
        for at, shift in ((0, 16), (1, 0))
    )
    return builder.add(first, second)


def repeated(builder: ir.IRBuilder, value: ir.Value, times: int) -> ir.Value:
    """A vector of nothing but that value."""
    nothing = ir.Constant(ir.VectorType(value.type, times), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _int(0)), nothing, _indices([0] * times))


def _chosen(builder: ir.IRBuilder, vector: ir.Value, which: range) -> ir.Value:
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), _indices(which))


def _indices(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_int, len(numbers)), list(numbers))
