"""Kernels that are compiled once for a dtype and called by their address, from wherever they are needed.

Numba links all that a kernel calls into it, and LLVM then optimises that and makes machine code of it once more: the matrix
product, which is most of the machine code there is, was compiled a dozen times before a first fit began. What is outlined
here is compiled by itself instead, when it is first called. Its address stands on the board (see ``threads``).
"""
import _thread
import ctypes
from collections.abc import Callable

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from fastnet.kernels._jit import AddressedKernel, jit
from fastnet.kernels.simd import PREPARE_SYMBOL, VECTOR_BYTES, board_here, call_prepare, lanes, load_int, noinline
from fastnet.kernels.structs import Mat
from fastnet.kernels.threads import KERNELS, set_kernel
from numba import typeof, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

# Places on the board, two to each
(WORK, TILE_LOOP, PACK_COPY, PACK_COLUMNS, MACRO_KERNEL, DOTS, SUMS_OF_ROWS, COLUMN_SUMS_OF, STEP_OF_SGD,
 SOFTMAX_ROWS, PLAIN_CONV, LIST_BACK, LANES_BACK, MASKS_BACK, FEW_BACK, WINOGRAD) = range(16)

MATRIX, INT = typeof(Mat(0, 0, 0, 0)), types.int64

_kernels: dict[int, Callable[[np.dtype], int]] = {}  # how to get their addresses
_signatures: dict[int, Callable[[types.Type], tuple]] = {}


def on_board(number: int, address_for: Callable[[np.dtype], int]) -> None:
    """Say how the address of a kernel is found, for elements of a dtype, once somebody calls it."""
    _kernels[number] = address_for


def outlined(number: int, signature: Callable[[types.Type], tuple]) -> Callable[[Callable], Callable]:
    """Decorator: compile a function for the argument types that `signature` gives for a float type; `call` calls it."""

    def decorate(function: Callable) -> Callable:
        _signatures[number] = signature
        on_board(number, AddressedKernel(function, signature).address)
        return function

    return decorate


def prepare(number: int, dtype: np.dtype) -> None:
    """Have the address of a kernel on the board."""
    with global_compiler_lock:  # may take seconds, and neither Numba's cache nor LLVM's linker stands two at a time
        set_kernel(_place(number, dtype.itemsize), _kernels[number](dtype))


def _place(number: int, size: int) -> int:
    return 2 * number + size // 8


def _prepare_for_compiled(number: int, size: int) -> None:
    """`prepare` for compiled code, which could not go on without: Ctrl-C has to wait."""
    interrupted = False
    while True:
        try:
            prepare(number, np.dtype(f"f{size}"))
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        _thread.interrupt_main()


_callback = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(_prepare_for_compiled)
llvm.add_symbol(PREPARE_SYMBOL, ctypes.cast(_callback, ctypes.c_void_p).value)


@jit
def address_of(number, like):
    """Address of a kernel for elements of the type of `like`."""
    noinline()
    size = VECTOR_BYTES // lanes(like)
    at = board_here() + 8 * (KERNELS + 2 * number + size // 8)
    if load_int(at) == 0:
        call_prepare(number, size)
        if load_int(at) == 0:
            raise RuntimeError("fastnet.kernels: a kernel could not be compiled")
    return load_int(at)


def _converted(context, builder, value, kind, wanted):
    """A number, or a `Mat` of numbers of several types, as what a kernel expects."""
    if wanted == MATRIX:
        fields = [_converted(context, builder, field, given, INT)
                  for field, given in zip(cgutils.unpack_tuple(builder, value), kind.types, strict=True)]
        return context.make_tuple(builder, MATRIX, fields)
    return context.cast(builder, value, types.unliteral(kind), wanted)


@intrinsic(prefer_literal=True)
def call(typingctx, number, address, arguments):
    """Call the outlined kernel `number`, whose address for its elements is known, with a tuple of arguments."""
    if not isinstance(number, types.IntegerLiteral):
        return None
    element = next(kind for kind in arguments.types if isinstance(kind, types.Float))
    expected = _signatures[number.literal_value](element)

    def codegen(context, builder, signature, values):
        given = cgutils.unpack_tuple(builder, values[2])
        cast = [_converted(context, builder, value, kind, wanted)
                for value, kind, wanted in zip(given, arguments.types, expected, strict=True)]
        kind = ir.FunctionType(ir.VoidType(), [context.get_value_type(wanted) for wanted in expected])
        builder.call(builder.inttoptr(values[1], kind.as_pointer()), cast)
        return context.get_dummy_value()

    return types.void(number, types.int64, arguments), codegen
