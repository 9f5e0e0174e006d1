"""Public kernels in a user's compiled code: a call is one of a kernel that is compiled once, for all callers.

Numba compiles only a *description* of each array (its address, shape and strides, int64s on the stack) and the call of a
`linking.AddressedKernel`. So the user's function contains nothing of the kernel, and compiles in a moment for arrays of any
layout. The kernel uses the memory of an array whose elements are in C order, and otherwise a copy::

    @array_kernel(2, types.float64)
    def _forward_here(outcome, y, x, slope, one):
        if opened(outcome, 1, (y, x)):
            n = elements_of(x)
            _forward(vector_at(at(y), n, one), vector_at(at(x), n, one), slope)
            finish(outcome, 1, (y, x))

    in_compiled_code(leaky_relu_forward, _forward_here, "y:* x:* slope")

`outcome` is the address of two int64s. A kernel that ends well stores 0 in the first, and a result that is a number in the
second. The caller raises an exception for what else it finds there.
"""
import inspect
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, AddressedKernel, converted, separate
from fastnet.kernels.simd import load_int, store_int
from numba import types
from numba.core import cgutils, errors
from numba.core.imputils import lower_builtin
from numba.core.typing import signature as signature_of
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

PAIR = types.UniTuple(INT, 2)  # a number for rows and one for columns; users may give one for both

_LEND, _COPY_THERE, _COPY_BACK, _END = range(4)  # what `_exchange` does
_DONE, _MISFIT, _NO_MEMORY = range(3)  # what a kernel stores in the outcome; the last is there before, if it ends early
# Bytes from a description's start: the address of the elements in C order or 0, that of the array, what keeps a copy ...
_AT, _DATA, _KEPT, _SIZE, _ITEM, _NDIM, _SHAPE = range(0, 56, 8)  # strides come last
_WORD = ir.IntType(64)

# --- what a user's function contains ----------------------------------------------------------------------------------


def array_kernel(arrays: int, *numbers: types.Type, allocates: bool = False) -> Callable[[Callable], AddressedKernel]:
    """Decorator for ``kernel(outcome, *arrays, *numbers, one)``: descriptions of arrays, then numbers of these types.

    The type of `one` is that of the arrays' elements; `allocates` says whether the kernel makes arrays.
    """
    return separate(lambda element: (*[INT] * (1 + arrays), *numbers, element), allocates)


def in_compiled_code(function: Callable, kernel: AddressedKernel, given: str, *constants: float, writes: int = 1,
                     returns: types.Type = types.void) -> None:
    """Have each call of a function in compiled code call a kernel.

    Parameters
    ----------
    function : callable
        What users call.
    kernel : AddressedKernel
        An `array_kernel`.
    given : str
        Names of the function's parameters, in the order of the kernel's. An array has a word for its shape: a letter or a 1
        for each axis, of which equal ones are equal sizes; ``*`` for its number of elements; or ``?`` for any. For an array
        that is None the kernel gets 0, and for a pair that is None (-1, -1).
    *constants : int or float
        The kernel's last arguments before `one`.
    writes : int
        The number of arrays that are written, the first ones.
    returns : numba.types.Type
        void, or float64 for what the kernel stores in the outcome.
    """
    words = [word.partition(":")[::2] for word in given.split()]
    parameters = inspect.signature(function)
    places = [[*parameters.parameters].index(name) for name, _ in words]
    arrays = [(place, shape) for place, (_, shape) in zip(places, words) if shape]
    misfit = f"{function.__name__} got arrays whose shapes do not fit each other; expected {_expected(words)}"

    def element_of(args: Any) -> types.Type:
        """The one type of the elements of all arrays, but for truth values."""
        kinds = [kind for place, shape in arrays if (kind := _array_type(args[place], shape)) is not None]
        found = {kind.dtype for kind in kinds} - {types.bool_}
        if len(found) != 1 or not found <= {types.float32, types.float64}:
            raise errors.TypingError(f"{function.__name__} takes arrays of one dtype, float32 or float64, got: "
                                     f"{', '.join(map(str, kinds))}")
        if not all(kind.mutable for kind in kinds[:writes]):
            raise errors.TypingError(f"{function.__name__} writes to an array that is read-only here")
        return found.pop()

    class Call(AbstractTemplate):
        key = function

        def generic(self, args: tuple, kws: dict) -> Any:
            try:
                bound = parameters.bind(*args, **kws).arguments
            except TypeError as error:
                raise errors.TypingError(f"{function.__name__}: {error}") from None
            every = [bound.get(name, types.Omitted(parameter.default))
                     for name, parameter in parameters.parameters.items()]
            kernel.ensure(element_of(every))
            return signature_of(returns, *every).replace(pysig=parameters)

    infer_global(function, types.Function(Call))

    @lower_builtin(function, types.VarArg(types.Any))
    def lower_call(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        element = element_of(signature.args)
        fit = _fit(context, builder, [(shape, *_array(context, builder, signature.args[place], values[place]))
                                      for place, shape in arrays])
        with builder.if_then(builder.not_(fit), likely=False):
            _refuse(context, builder, misfit)
        outcome = cgutils.alloca_once(builder, _WORD, size=2)
        builder.store(_WORD(_NO_MEMORY), outcome)
        arguments = [builder.ptrtoint(outcome, _WORD)]
        for place, wanted in zip((*places, *constants, 1), kernel.signature(element)[1:]):
            if len(arguments) <= len(places):
                arguments.append(_argument(context, builder, signature.args[place], values[place], wanted))
            else:
                arguments.append(context.get_constant(wanted, place))
        kernel.call(context, builder, element, arguments)
        found = builder.load(outcome)
        with builder.if_then(builder.icmp_unsigned("!=", found, _WORD(_DONE)), likely=False):
            with builder.if_then(builder.icmp_unsigned("==", found, _WORD(_MISFIT))):
                _refuse(context, builder, misfit)
            context.call_conv.return_user_exc(builder, MemoryError, (f"{function.__name__} had not enough memory",))
        if returns == types.void:
            return context.get_dummy_value()
        number = builder.gep(outcome, [ir.IntType(32)(1)])
        return builder.load(builder.bitcast(number, context.get_value_type(returns).as_pointer()))


def _array_type(given: types.Type, shape: str) -> types.Array | None:
    """The type of an array, or of the first field of a named tuple; None for None."""
    if isinstance(given, types.NoneType) or (isinstance(given, types.Omitted) and given.value is None):
        return None
    kind = given.types[0] if isinstance(given, types.NamedTuple) else given
    if not isinstance(kind, types.Array) or (shape not in "*?" and kind.ndim != len(shape)):
        raise errors.TypingError(f"got {given} for an array of {len(shape)} dimensions")
    return kind


def _array(context: Any, builder: ir.IRBuilder, given: types.Type, value: ir.Value) -> tuple[types.Array | None, Any]:
    kind = _array_type(given, "?")
    if kind is None:
        return None, None
    if isinstance(given, types.NamedTuple):
        value = cgutils.unpack_tuple(builder, value)[0]
    return kind, make_array(kind)(context, builder, value)


def _fit(context: Any, builder: ir.IRBuilder, arrays: list) -> ir.Value:
    """Whether the arrays have the shapes that their words say."""
    fit, known = ir.IntType(1)(1), {"1": _WORD(1)}
    for shape, kind, array in arrays:
        if kind is not None and shape != "?":
            sides = [array.nitems] if shape == "*" else cgutils.unpack_tuple(builder, array.shape)
            for letter, side in zip(shape, sides):
                if letter in known:
                    fit = builder.and_(fit, builder.icmp_unsigned("==", known[letter], side))
                known[letter] = side
    return fit


def _expected(words: list[tuple[str, ...]]) -> str:
    """The shapes of arrays, for an error message."""
    shapes = [f"{name} ({', '.join(shape)})" for name, shape in dict(words).items() if shape and shape not in "*?"]
    alike = [name for name, shape in words if shape == "*"]
    return ", ".join([*shapes, *([f"{' and '.join(alike)} of one shape"] if alike else [])])


def _refuse(context: Any, builder: ir.IRBuilder, why: str) -> None:
    context.call_conv.return_user_exc(builder, ValueError, (why,))


def _argument(context: Any, builder: ir.IRBuilder, given: types.Type, value: ir.Value, wanted: types.Type) -> ir.Value:
    """What a kernel gets for an argument of the function."""
    if isinstance(given, (types.Array, types.NamedTuple)):
        return _description(builder, *_array(context, builder, given, value))
    if isinstance(given, (types.NoneType, types.Omitted)):
        default = getattr(given, "value", None)
        missing = 0 if wanted == INT else -1
        value, given = context.get_constant(types.float64, float(missing if default is None else default)), types.float64
    if wanted == PAIR and not isinstance(given, types.BaseTuple):
        return context.make_tuple(builder, wanted, [converted(context, builder, value, given, INT)] * 2)
    return converted(context, builder, value, given, wanted)


def _description(builder: ir.IRBuilder, kind: types.Array, array: Any) -> ir.Value:
    """The address of an array's description."""
    data = builder.ptrtoint(array.data, _WORD)
    fields = [data if kind.layout == "C" and kind.aligned else _WORD(0), data, None, array.nitems, array.itemsize,
              _WORD(kind.ndim), *cgutils.unpack_tuple(builder, array.shape), *cgutils.unpack_tuple(builder, array.strides)]
    record = cgutils.alloca_once(builder, _WORD, size=len(fields))
    for number, field in enumerate(fields):
        if field is not None:
            builder.store(field, builder.gep(record, [ir.IntType(32)(number)]))
    return builder.ptrtoint(record, _WORD)


# --- what kernels do with descriptions --------------------------------------------------------------------------------


@jit
def data_of(array):
    """The address of the first element, for any strides."""
    return load_int(array + _DATA)


@jit
def elements_of(array):
    """The number of elements."""
    return load_int(array + _SIZE)


@jit
def dimensions_of(array):
    """The number of axes."""
    return load_int(array + _NDIM)


@jit
def side(array, axis):
    """The size of an axis."""
    return load_int(array + _SHAPE + 8 * axis)


@jit
def stride(array, axis):
    """The distance of neighbours along an axis, in bytes."""
    return side(array, dimensions_of(array) + axis)


@jit
def opened(outcome, writes, arrays):
    """Have the elements of all arrays in C order at `at`, of which the first ones are written; False where memory lacks."""
    whole = True
    for number in range(len(arrays)):
        if load_int(arrays[number] + _AT) == 0:
            _exchange(arrays[number], _LEND if number < writes else _COPY_THERE)
            whole = whole and load_int(arrays[number] + _AT) != 0
    if not whole:
        close(0, arrays)
    return whole


@jit
def at(array):
    """The address of the elements in C order, of an array that is `opened`: where they are, or a copy."""
    return load_int(array + _AT)


@jit
def finish(outcome, writes, arrays):
    """`close`, and `done`."""
    close(writes, arrays)
    done(outcome)


@jit
def close(writes, arrays):
    """Bring what has been written to the first arrays, which were `opened`, into them, and free all copies."""
    for number in range(len(arrays)):
        array = arrays[number]
        if load_int(array + _AT) != load_int(array + _DATA):
            _exchange(array, _COPY_BACK if number < writes else _END)


@jit
def done(outcome):
    """Note that the work is done."""
    store_int(outcome, _DONE)


@jit
def fits(outcome, condition):
    """Note that the shapes of the arguments do not fit, unless they do; returns whether they do."""
    if not condition:
        store_int(outcome, _MISFIT)
    return condition


@separate(lambda element: (INT, INT), allocates=True)
def _exchange(array, what):
    """Lend memory to an array whose elements are not in C order, or take it back."""
    if what == _LEND or what == _COPY_THERE:
        if _in_order(array):
            store_int(array + _AT, load_int(array + _DATA))
            return
        kept = _allocate(max(1, elements_of(array) * load_int(array + _ITEM)))
        store_int(array + _KEPT, kept)
        store_int(array + _AT, _memory_of(kept) if kept != 0 else 0)
    copy = load_int(array + _AT)
    if copy != 0:
        if what == _COPY_THERE or what == _COPY_BACK:
            _move(copy, array, what == _COPY_BACK)
        if what == _COPY_BACK or what == _END:
            _free(load_int(array + _KEPT))


@jit
def _in_order(array):
    expected = load_int(array + _ITEM)
    if load_int(array + _DATA) % expected != 0:
        return False
    for axis in range(dimensions_of(array) - 1, -1, -1):
        if side(array, axis) != 1:
            if stride(array, axis) != expected:
                return False
            expected *= side(array, axis)
    return True


@jit
def _move(flat, array, back):
    """Copy the elements of an array to an address, one behind the other in C order, or back."""
    last, item = dimensions_of(array) - 1, load_int(array + _ITEM)
    inner, step = (side(array, last), stride(array, last)) if last >= 0 else (1, 0)
    for row in range(elements_of(array) // max(1, inner)):
        place, rest = load_int(array + _DATA), row
        for axis in range(last - 1, -1, -1):
            place += rest % side(array, axis) * stride(array, axis)
            rest //= side(array, axis)
        if back:
            _copy_elements(place, step, flat, item, inner, item)
        else:
            _copy_elements(flat, item, place, step, inner, item)
        flat += inner * item


@jit
def _copy_elements(to, to_step, place, step, count, item):
    """Copy `count` elements of 8, 4 or 1 bytes, which lie so many bytes apart."""
    if item == 8:
        for i in range(count):
            _copy_element(to + i * to_step, place + i * step, np.int64(0))
    elif item == 4:
        for i in range(count):
            _copy_element(to + i * to_step, place + i * step, np.int32(0))
    else:
        for i in range(count):
            _copy_element(to + i * to_step, place + i * step, np.int8(0))


@intrinsic
def _copy_element(typingctx, to, place, like):
    """Copy an element of the size of `like`, from and to any address."""
    def codegen(context, builder, signature, arguments):
        pointer = ir.IntType(like.bitwidth).as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], pointer), align=1)
        builder.store(value, builder.inttoptr(arguments[0], pointer), align=1)
        return context.get_dummy_value()

    return types.void(INT, INT, like), codegen


@intrinsic
def _allocate(typingctx, size):
    """What keeps memory of so many bytes until `_free` is called with it, or 0."""
    def codegen(context, builder, signature, arguments):
        kept = context.nrt.meminfo_alloc_aligned_unchecked(builder, arguments[0], ir.IntType(32)(64))
        return builder.ptrtoint(kept, _WORD)

    return INT(INT), codegen


@intrinsic
def _memory_of(typingctx, kept):
    """The address of the memory."""
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        return builder.ptrtoint(context.nrt.meminfo_data(builder, pointer), _WORD)

    return INT(INT), codegen


@intrinsic
def _free(typingctx, kept):
    def codegen(context, builder, signature, arguments):
        kind = types.MemInfoPointer(types.voidptr)
        context.nrt.decref(builder, kind, builder.inttoptr(arguments[0], context.get_value_type(kind)))
        return context.get_dummy_value()

    return types.void(INT), codegen


@intrinsic
def array_at(typingctx, address, shape, like):
    """The C-contiguous array of elements of the type of `like` at an address."""
    kind = types.Array(types.unliteral(like), len(shape), "C")

    def codegen(context, builder, signature, arguments):
        made, sides = make_array(kind)(context, builder), cgutils.unpack_tuple(builder, arguments[1])
        strides = [_WORD(like.bitwidth // 8)]
        for count in reversed(sides[1:]):
            strides.insert(0, builder.mul(strides[0], count))
        populate_array(made, data=builder.inttoptr(arguments[0], made.data.type), shape=sides, strides=strides,
                       itemsize=_WORD(like.bitwidth // 8), meminfo=None)
        return made._getvalue()

    return kind(INT, shape, like), codegen
