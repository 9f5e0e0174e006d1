"""Kernels that are compiled separately, once for a dtype, and called by their address.

Numba links all that a kernel calls into it, and LLVM then optimises that and makes machine code of it once more: the matrix
product, which is most of the machine code there is, would be compiled a dozen times before a first fit began. What is
`separate` is compiled as one function instead. Compiled code calls it by a symbol, as it calls a function of a C library.

A symbol must be there before code that refers to it is loaded. So the function is compiled, or loaded, while the types of a
call of it are inferred, and each caller names it in its Numba environment, which Numba keeps with the
machine code, in its own cache as well: reading that in another process loads the function first.
"""
import ctypes
import hashlib
import importlib
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from fastnet.kernels.codegen.carried import codegen
from fastnet.kernels.codegen.digest import SOURCES
from fastnet.kernels.codegen.jit import Kernel, compile_into, compiling, jit, jit_control
from numba import from_dtype, types
from numba.core import cgutils, errors
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing import signature as signature_of
from numba.extending import intrinsic, register_model

INT = types.int64
Signature = Callable[[types.Type], tuple]

# Machine code calls kernels of the same sources, compiled for the same CPU: vectors of another width are packed otherwise.
VERSION = None if SOURCES is None else hashlib.sha256(f"{SOURCES} {codegen().magic_tuple()}".encode()).hexdigest()[:16]

_separate: dict[str, "AddressedKernel"] = {}  # by name


class AddressedKernel:
    """A function that compiled code calls by its address; `signature` gives its arguments' types for a float type.

    In compiled code it is called by its name, as any other; it returns nothing, and raises nothing.

    Parameters
    ----------
    function : callable
        What to compile.
    signature : callable
        Gives the arguments' types for a float type.
    decorator : callable
        How to compile it: `jit` or another of its module.
    allocates : bool
        Whether it allocates memory, for which references are counted. They are if an argument is an array.
    """

    def __init__(self, function: Callable, signature: Signature, decorator: Callable[[Callable], Kernel] = jit,
                 allocates: bool = False) -> None:
        self._function, self._signature, self._jit, self._allocates = function, signature, decorator, allocates
        self.name = f"{function.__module__}:{function.__qualname__}"
        self._compiled: dict[types.Type, tuple[int, Any]] = {}  # the address, and what keeps it
        self._numba_type_ = _SeparateFunction(self)
        _separate[self.name] = self
        lower_builtin(self, types.VarArg(types.Any))(self._lower_call)

    def address(self, dtype: np.dtype | None = None) -> int:
        """Where the version for elements of `dtype` is; compiled, or taken from the cache, when it is first asked for.

        A kernel whose arguments are the same for all of them has one version, without a dtype.
        """
        return self.ensure(types.none if dtype is None else from_dtype(dtype))

    def elements(self) -> list[types.Type]:
        """The types of elements for which there is a version."""
        one_version = self._signature(types.float32) == self._signature(types.float64)
        return [types.none] if one_version else [types.float32, types.float64]

    def ensure(self, element: types.Type) -> int:
        """`address` for Numba's type of the elements."""
        if element not in self._compiled:
            with compiling():
                if element not in self._compiled:
                    made = self._compile(element)
                    address = made.library.get_pointer_to_function(made.fndesc.llvm_cfunc_wrapper_name)
                    self._tell(element, address)
                    self._compiled[element] = address, made
        return self._compiled[element][0]

    def _tell(self, element: types.Type, address: int) -> None:
        """Let code that refers to it find it."""
        llvm.add_symbol(self.symbol(element), address)

    def require(self, element: types.Type) -> None:
        """Have what code that refers to it needs, before that code is compiled or loaded: the kernel."""
        self.ensure(element)

    def is_at_hand(self, element: types.Type) -> bool:
        """Whether it need not be compiled any more."""
        return element in self._compiled or self._jit(self._function)._cache.has(types.void(*self._signature(element)))

    def symbol(self, element: types.Type) -> str:
        """The name by which compiled code refers to it: no other version of the sources has the same."""
        return f"fastnet.{VERSION}.{self.name}.{element}"

    def signature(self, element: types.Type) -> tuple:
        """The arguments' types."""
        return self._signature(element)

    def _compile(self, element: types.Type) -> Any:
        kernel, arguments = self._jit(self._function), self._signature(element)
        key = types.void(*arguments)
        made = kernel._cache.load_overload(key, kernel.targetctx)
        if made is None:
            counts = self._allocates or any(isinstance(argument, types.Array) for argument in arguments)
            made = compile_into(kernel.library, kernel, arguments, types.void, no_compile=True, no_cpython_wrapper=True,
                                nrt=counts)
            kernel._cache.save_overload(key, made)
        return made

    def _lower_call(self, context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        element = _element(signature.args)
        expected = self._signature(element)
        self.call(context, builder, element, [converted(context, builder, value, given, wanted) for value, given, wanted
                                              in zip(values, signature.args, expected, strict=True)])
        return context.get_dummy_value()

    def call(self, context: Any, builder: ir.IRBuilder, element: types.Type, arguments: list[ir.Value]) -> None:
        """Emit a call with arguments of its own types."""
        builder.call(self._declared(context, builder, element), arguments)

    def _declared(self, context: Any, builder: ir.IRBuilder, element: types.Type) -> ir.Function:
        """The function in a module that refers to it, which is noted down in the caller's environment."""
        context.environment.consts.append(_Needed(self, element))
        return cgutils.get_or_insert_function(builder.module, self._kind(context, element), self.symbol(element))

    def _kind(self, context: Any, element: types.Type) -> ir.FunctionType:
        return ir.FunctionType(ir.VoidType(), [context.get_value_type(type_) for type_ in self._signature(element)])


class LateKernel(AddressedKernel):
    """A kernel that only saves time: code that calls it runs without it, until it is there.

    That code asks `is_there` first, and counts its work with `pays`. What the kernel needs is at a place in memory: its
    address, which is 0 until `ensure`, and the work so far.

    Parameters
    ----------
    function, signature
        See `AddressedKernel`.
    worth : int
        The work, in units of its callers, in which it saves the time that its compilation takes.
    """

    def __init__(self, function: Callable, signature: Signature, worth: int) -> None:
        super().__init__(function, signature)
        self.worth = worth
        self._places: dict[types.Type, Any] = {}
        self._expected: set[types.Type] = set()

    def place(self, element: types.Type) -> Any:
        """Its address and the work so far, an array of two whole numbers."""
        if element not in self._places:
            place = self._places.setdefault(element, (ctypes.c_int64 * 2)())
            llvm.add_symbol(self.symbol(element), ctypes.addressof(place))
        return self._places[element]

    def _tell(self, element: types.Type, address: int) -> None:
        self.place(element)[0] = address

    def require(self, element: types.Type) -> None:
        """Have the place."""
        self.place(element)

    def expect(self, dtype: np.dtype, work: int = 0) -> None:
        """Count work that begins now; have the kernel if that pays, or if the cache has it."""
        element = from_dtype(dtype)
        is_new, place = element not in self._expected, self.place(element)
        self._expected.add(element)
        if not place[0]:
            place[1] += work
            if place[1] > self.worth or (is_new and self.is_at_hand(element)):
                self.ensure(element)

    def call(self, context: Any, builder: ir.IRBuilder, element: types.Type, arguments: list[ir.Value]) -> None:
        """Emit a call of the function whose address is at the place."""
        address = builder.load(self.emit_place(context, builder, element))
        builder.call(builder.inttoptr(address, self._kind(context, element).as_pointer()), arguments)

    def emit_place(self, context: Any, builder: ir.IRBuilder, element: types.Type) -> ir.Value:
        """The place, as a pointer to whole numbers."""
        return builder.bitcast(self._declared(context, builder, element), ir.IntType(64).as_pointer())


def separate_kernels() -> dict[str, AddressedKernel]:
    """Those of all modules that are imported, by name."""
    return dict(_separate)


class _SeparateFunction(types.Callable, types.Opaque):
    """Numba's type of an `AddressedKernel`."""

    def __init__(self, kernel: AddressedKernel) -> None:
        self.kernel = kernel
        super().__init__(f"AddressedKernel({kernel.name})")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            raise errors.TypingError(f"{self.kernel.name} is called without names of arguments")
        self.kernel.require(_element(args))
        return signature_of(types.void, *map(types.unliteral, args))

    def get_call_signatures(self) -> tuple:
        return [], True

    def get_impl_key(self, sig: Any) -> AddressedKernel:
        return self.kernel


register_model(_SeparateFunction)(models.OpaqueModel)


class _Needed:
    """What code that calls a kernel leaves in its environment: read in another process, it has the kernel there first."""

    def __init__(self, kernel: AddressedKernel, element: types.Type) -> None:
        self._kernel, self._element = kernel, element

    def __reduce__(self) -> tuple:
        return _need, (self._kernel.name, str(self._element), VERSION)


def _need(name: str, element: str, version: str) -> _Needed:
    if version is None or version != VERSION:  # Numba takes this for a cache without the file, and compiles anew
        raise FileNotFoundError("compiled for another version of fastnet")
    kernel, type_ = _named(name, element)
    kernel.require(type_)
    return _Needed(kernel, type_)


def is_at_hand(name: str, element: str) -> bool:
    """Whether a kernel, by its name, is compiled or kept in the cache, for elements of a type by its name."""
    return _separate[name].is_at_hand(getattr(types, element))


def ensure(name: str, element: str) -> tuple[AddressedKernel, types.Type]:
    """Have a kernel by its name, for elements of a type by its name; returns both."""
    kernel, type_ = _named(name, element)
    kernel.ensure(type_)
    return kernel, type_


def _named(name: str, element: str) -> tuple[AddressedKernel, types.Type]:
    importlib.import_module(name.partition(":")[0])
    return _separate[name], getattr(types, element)


def _element(args: Any) -> types.Type:
    """The type of the last of the floats: an address may be one, where Numba unifies a signed and an unsigned one."""
    return next((type_ for type_ in reversed(args) if isinstance(type_, types.Float)), types.none)


def converted(context: Any, builder: ir.IRBuilder, value: ir.Value, given: types.Type, wanted: types.Type) -> ir.Value:
    """A number, or a named tuple of numbers of several types, as what a kernel expects."""
    if isinstance(wanted, types.BaseTuple):
        fields = [converted(context, builder, field, type_, target) for field, type_, target
                  in zip(cgutils.unpack_tuple(builder, value), given.types, wanted.types, strict=True)]
        return context.make_tuple(builder, wanted, fields)
    return context.cast(builder, value, types.unliteral(given), wanted)


@intrinsic
def address_of(typingctx, kernel, like):
    """Address of an `AddressedKernel` for elements of the type of `like`, None for a kernel of one version."""
    kernel.kernel.ensure(like)

    def codegen(context, builder, signature, values):
        return builder.ptrtoint(kernel.kernel._declared(context, builder, like), ir.IntType(64))

    return INT(kernel, like), codegen


@intrinsic
def is_there(typingctx, kernel, like):
    """Whether a `LateKernel` for elements of the type of `like` can be called."""
    kernel.kernel.require(like)

    def codegen(context, builder, signature, values):
        address = builder.load(kernel.kernel.emit_place(context, builder, like))
        return builder.icmp_signed("!=", address, ir.Constant(address.type, 0))

    return types.boolean(kernel, like), codegen


@intrinsic
def pays(typingctx, kernel, work, like):
    """Count work for a `LateKernel`; whether it is not there, and this pays for its compilation."""
    kernel.kernel.require(like)

    def codegen(context, builder, signature, values):
        place = kernel.kernel.emit_place(context, builder, like)
        count = builder.gep(place, [ir.Constant(ir.IntType(32), 1)])
        total = builder.add(builder.load(count), values[1])
        builder.store(total, count)
        zero, worth = (ir.Constant(total.type, number) for number in (0, kernel.kernel.worth))
        return builder.and_(builder.icmp_signed("==", builder.load(place), zero), builder.icmp_signed(">", total, worth))

    return types.boolean(kernel, INT, like), codegen


def separate(signature: Signature, allocates: bool = False) -> Callable[[Callable], AddressedKernel]:
    """Decorator: an `AddressedKernel` with arguments of the types that `signature` gives for a float type."""
    return lambda function: AddressedKernel(function, signature, allocates=allocates)


def op_kernel(function: Callable) -> AddressedKernel:
    """A decorator for ``kernel(op, context, start, stop, one)``, an op of a compiled step that is called by address.

    `op` and `context` are addresses (`records.op_at`, `records.context_at`), start:stop the samples of the batch that are
    the thread's, and the type of `one` is that of the elements. It compiles when a network first needs it, and the
    interpreter of steps need not know it.
    """
    return AddressedKernel(function, lambda element: (*[INT] * 4, element))


def command_kernel(function: Callable) -> AddressedKernel:
    """Decorator for ``kernel(thread, threads, sync, scratch, command, one)``, which executes a `records.COMMAND`.

    The first four arguments are those of a `thread_kernel`, `command` is the record's address, and the type of `one` is that
    of the elements.
    """
    return AddressedKernel(function, lambda element: (*[INT] * 5, element))


def thread_kernel(function: Callable) -> AddressedKernel:
    """Decorator for a function of five whole numbers, as `pool.run_compiled` calls it; it calls kernels for all elements."""
    return AddressedKernel(function, lambda element: (INT,) * 5, jit_control)
