"""Asking for memory before it is read, in compiled code."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def fetch_line(_: Any, address: Any) -> Any:  # noqa: ARG001 - numba passes its type
    """Ask for what lies at an address, an int64. The processor waits for nothing, and may be given any address."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), number(0), number(2), number(1)])

    return types.void(types.int64), generate
