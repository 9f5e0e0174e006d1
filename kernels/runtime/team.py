"""Kernels of arrays that Python calls, executed by all threads without Python.

A kernel has the arguments of every kernel, ``kernel(thread, threads, sync, scratch, *args)`` with `sync` as an address.
`run` compiles one function for it and the types of its arguments. That function copies them into a record on the stack, and
has the threads call a second function, by its address, which reads the record and calls the kernel. So Numba looks at the
types of the arguments once a call, not once a thread, and no thread waits for Python's lock.
"""
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from fastnet.kernels.codegen.jit import Kernel, jit, jit_control
from fastnet.kernels.codegen.linking import INT, AddressedKernel
from fastnet.kernels.runtime.pool import UNLIMITED, run_compiled, start_workers, thread_context
from fastnet.kernels.simd import ADDRESS, load_int, store_int
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_DONE, _FAILED, _NO_WORKERS = range(3)  # the first field of a record
_entries: dict[tuple[Kernel, str], Kernel] = {}  # by the kernel, and the dtype of its first argument


def run(kernel: Kernel, *args: Any, work: int = UNLIMITED) -> None:
    """Call ``kernel(thread, threads, sync, scratch, *args)`` on all threads and wait for them.

    Parameters
    ----------
    kernel : compiled function
        Its result does not depend on the number of threads. It has no barriers: a thread that fails would leave the others
        waiting there.
    *args
        The kernel's arguments, the same for every thread; the first one is an array.
    work : int, optional
        The multiply-adds that take the same time: see `pool.run_compiled` for when one thread executes the call.

    Raises
    ------
    MemoryError
        If the kernel could not allocate memory, which is all that can fail in it.
    """
    # One for each dtype: Numba 0.60 tells long tuples apart by memory that it has not written, and would mix up the two.
    key = kernel, args[0].dtype.char
    entry = _entries.get(key) or _entries.setdefault(key, _entry(kernel))
    outcome = _NO_WORKERS
    while outcome == _NO_WORKERS:
        outcome = entry(thread_context(), work, args)
        if outcome == _NO_WORKERS:
            start_workers()
    if outcome == _FAILED:
        raise MemoryError(f"no memory for the work of {kernel.__name__.strip('_')}")


def _entry(kernel: Kernel) -> Kernel:
    """What Python calls for a kernel: it returns one of the outcomes."""
    def on_threads(context, work, args):
        record = _record(args)
        _start(context, _reader(kernel, args), record, work)
        return load_int(record)

    function: Callable = on_threads
    function.__module__, function.__name__ = kernel.py_func.__module__, f"{kernel.py_func.__name__}_on_threads"
    function.__qualname__ = function.__name__
    return jit(function)


def _started(context, function, record, work):
    if not run_compiled(context, function, record, UNLIMITED, work):
        store_int(record, _NO_WORKERS)


_start = AddressedKernel(_started, lambda element: (INT,) * 4, jit_control)


@intrinsic
def _record(typingctx, args):
    """Address of a record on the stack: the outcome, and the arguments."""
    def codegen(context, builder, signature, values):
        record = cgutils.alloca_once(builder, _layout(context, signature.args[0]))
        builder.store(ir.Constant(ADDRESS, _DONE), cgutils.gep_inbounds(builder, record, 0, 0))
        packed = _uncounted(context, builder, signature.args[0], values[0])
        builder.store(packed, cgutils.gep_inbounds(builder, record, 0, 1))
        return builder.ptrtoint(record, ADDRESS)

    return INT(args), codegen


def _uncounted(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    """An array that owns no memory: otherwise all threads would count references to the same owner, each view of theirs.

    The caller keeps the arrays until all threads are done.
    """
    if isinstance(kind, types.BaseTuple):
        for number, field in enumerate(kind.types):
            part = _uncounted(context, builder, field, builder.extract_value(value, number))
            value = builder.insert_value(value, part, number)
    elif isinstance(kind, types.Array):
        array = make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        value = array._getvalue()
    return value


@intrinsic
def _reader(typingctx, kernel, args):
    """Address of a function, as `pool.run_compiled` calls it, that reads a record and calls the kernel."""
    def codegen(context, builder, signature, values):
        linked = kernel.dispatcher._link((INT,) * 4 + tuple(args.types))
        context.active_code_library.add_linking_library(linked.library)
        callee, descriptor = context.declare_function(builder.module, linked.fndesc), linked.fndesc
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [ADDRESS] * 5), f"{callee.name}.reader")
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        record = inside.inttoptr(function.args[4], _layout(context, args).as_pointer())
        packed = inside.load(cgutils.gep_inbounds(inside, record, 0, 1))
        given = [*function.args[:4], *cgutils.unpack_tuple(inside, packed)]
        status, _ = context.call_conv.call_function(inside, callee, descriptor.restype, descriptor.argtypes, given)
        with cgutils.if_unlikely(inside, status.is_error):
            inside.store(ir.Constant(ADDRESS, _FAILED), cgutils.gep_inbounds(inside, record, 0, 0))
        inside.ret_void()
        return builder.ptrtoint(function, ADDRESS)

    return INT(kernel, args), codegen


def _layout(context: Any, args: Any) -> ir.Type:
    return ir.LiteralStructType([ADDRESS, context.get_value_type(args)])
