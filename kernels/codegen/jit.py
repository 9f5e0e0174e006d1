"""The one place that decides how kernels are compiled; `cache` decides where the compiled code is kept.

A function becomes machine code only where somebody enters it: Python, or another kernel through `linking`. A helper that
kernels call is typed and lowered once, and its LLVM code is linked into each of them, to be optimised there with the rest.

Everything that a kernel can call is compiled before the kernel is entered, and nothing disturbs a compilation: see
`compiling`.
"""
import contextlib
import gc
import operator
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

from fastnet.kernels.codegen import progress
from fastnet.kernels.codegen.cache import CACHE, KernelCache
from fastnet.kernels.codegen.carried import codegen
from numba import config, types
from numba.core import cgutils, compiler, errors, fastmathpass, lowering, sigutils, typing
from numba.core import ir as numba_ir
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.datamodel import models
from numba.core.imputils import builtin_registry
from numba.core.ir_utils import build_definitions
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.runtime import rtsys
from numba.core.ssa import reconstruct_ssa
from numba.core.targetconfig import ConfigStack
from numba.core.typing.context import CallStack
from numba.cpython.builtins import do_minmax
from numba.extending import intrinsic, register_model

if vars(config)["DISABLE_JIT"]:
    raise ImportError("fastnet's kernels are compiled by Numba, which NUMBA_DISABLE_JIT has turned off here: unset it, or "
                      "set it to 0.")

# LLVM may fuse a*b + c and reorder sums; it may never assume that NaN and inf do not occur.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}

_context, _numba = cpu_target.typing_context, cpu_target.target_context

# --- undisturbed ------------------------------------------------------------------------------------------------------

_depth = 0  # of `compiling`, guarded by Numba's lock


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Hold Numba's lock and keep signals waiting while a kernel is compiled, or loaded from the cache.

    A handler that raises (Ctrl-C, an alarm) in the middle of Numba's work could leave half of it behind, and one that uses
    fastnet would compile inside a compilation. So handlers run when the outermost block has ended, and what they raise
    leaves the block. An exception out of Numba's work (no memory, too deep a recursion) leaves it unchanged, and
    nothing is kept of the attempt: the next call tries again.
    """
    global _depth
    signals = _Signals()
    try:
        with global_compiler_lock:
            collects = _depth == 0 and gc.isenabled()  # asked with the lock held: another thread's compilation is over
            if _depth == 0:
                signals.wait()
                gc.disable()  # a tenth of the time: little of what Numba makes is garbage already
            _depth += 1
            calls, _context.callstack = _context.callstack, CallStack()  # a finalizer may run, and need the same function
            try:
                yield
            except errors.NumbaError as error:
                if _depth == 1 and (reason := _reason(error)) is not None:
                    raise reason from None
                raise
            finally:
                _context.callstack = calls
                _depth -= 1
                if _depth == 0:
                    progress.clear()
                if collects:
                    gc.enable()
    finally:
        signals.go_on()


def _reason(error: BaseException) -> BaseException | None:
    """The exception that Numba has turned into one of its errors, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        origin = type(seen).__module__.partition(".")[0]
        if isinstance(seen, (MemoryError, RecursionError, OSError)) or origin not in ("builtins", "numba", "llvmlite"):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class _Signals:
    """Keeps the handlers of signals that are written in Python from running, in the one thread in which they do."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._came: dict[int, FrameType | None] = {}

    def wait(self) -> None:
        """From now on, signals only leave a note."""
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._came.__setitem__)

    def go_on(self) -> None:
        """Put the handlers back, and call those whose signals have come; raises what the first of them raises."""
        raised: list[BaseException] = []

        def attempt(function: Callable, *arguments: Any) -> None:
            try:
                function(*arguments)
            except BaseException as error:
                raised.append(error)

        for number, handler in self._handlers.items():
            attempt(signal.signal, number, handler)  # a signal that comes here finds its own handler, which may raise
        for number, frame in self._came.items():
            attempt(self._handlers[number], number, frame)
        if raised:
            raise raised[0]


# --- types ------------------------------------------------------------------------------------------------------------


class _Function(types.Function):
    """A function or operator of Numba's that remembers its signatures.

    Numba asks each of an operator's templates again at every use, up to three times while it infers types and once more when
    it lowers: a tenth of all the time.
    """

    def __init__(self, templates: tuple) -> None:
        super().__init__(templates)
        self._known: dict[tuple, Any] = {}

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        arguments = (*args, *kws.items())
        signature = self._known.get(arguments)
        if signature is None:
            signature = self._known[arguments] = super().get_call_type(context, args, kws)
        return signature


register_model(_Function)(models.OpaqueModel)
_functions: dict[types.Function, _Function] = {}


def _extreme(better: Callable) -> Any:
    """Numba's `min` or `max` of numbers as instructions; its own is compiled anew for each combination of types."""

    @intrinsic
    def extreme(typingctx, *numbers):
        kinds = numbers[0].types if isinstance(numbers[0], types.BaseTuple) else numbers
        result = typingctx.unify_types(*map(types.unliteral, kinds))

        def codegen(context, builder, signature, arguments):
            values = cgutils.unpack_tuple(builder, arguments[0])
            return do_minmax(context, builder, signature.args[0].types, values, better)

        return result(types.StarArgTuple(numbers)), codegen

    return extreme


_smallest, _largest = _extreme(operator.lt), _extreme(operator.gt)


class _TypingContext(type(_context)):  # type: ignore[misc]
    """Numba's typing context, whose state it shares; but functions remember their signatures."""

    def __init__(self) -> None:
        self.__dict__ = _context.__dict__

    def refresh(self) -> None:
        pass  # see `_Registries`

    def resolve_value_type(self, val: Any) -> types.Type:
        found = super().resolve_value_type(_smallest if val is min else _largest if val is max else val)
        if type(found) is not types.Function:
            return found
        if found not in _functions:
            _functions[found] = _Function(found.templates)
        return _functions[found]


_remembering = _TypingContext()


class _Registries:
    """Numba's registries of functions and of code for them, of which kernels need a few.

    Before it first compiles, Numba imports all of them, which takes it half a second: those for linear algebra (with SciPy,
    where that is installed), random numbers and containers. Kernels are compiled without these, and with them only if that
    fails. Functions that Numba itself compiles, a user's, find all of them as before.
    """

    def __init__(self) -> None:
        self.complete = False  # whether a kernel has needed more
        self._needed: tuple = ()

    @contextlib.contextmanager
    def loaded(self) -> Iterator[None]:
        """Have what a kernel needs. Numba asks for all at each intrinsic, and gets what has been added since."""
        # imported here, as kernels from the cache need none of them; some add to the registry of built-in functions
        from numba.cpython import cmathimpl, iterators, mathimpl, numbers, rangeobj, slicing, tupleobj  # noqa: F401
        from numba.np import npyimpl
        self._needed = cmathimpl.registry, mathimpl.registry, npyimpl.registry, builtin_registry
        nested = "refresh" in vars(_numba)
        _numba.refresh = self.add_new
        try:
            self.add_new()
            if self.complete:
                type(_numba).refresh(_numba)
            _context.refresh()
            yield
        finally:
            if not nested:
                del _numba.refresh

    def add_new(self) -> None:
        """Add what has been registered since: each intrinsic is when its types are first inferred."""
        for registry in self._needed:
            _numba.install_registry(registry)


_registries = _Registries()


class _Target(type(_numba)):  # type: ignore[misc]
    """Numba's target context, whose state it shares; its memory management is linked into what counts references only."""

    def __init__(self) -> None:
        self.__dict__ = _numba.__dict__

    def refresh(self) -> None:
        _registries.add_new()

    def post_lowering(self, mod: Any, library: Any) -> None:
        if self.enable_nrt or self.is32bit:
            rtsys.initialize(self)
            super().post_lowering(mod, library)
        elif self.fastmath:
            fastmathpass.rewrite_module(mod, self.fastmath)


def _target() -> _Target:
    return _Target().subtarget(typing_context=_remembering)


# --- kernels ----------------------------------------------------------------------------------------------------------


class _Lower(lowering.Lower):
    """Numba's lowering to LLVM code, without what it does for each instruction or variable and kernels do not need."""

    def lower_block(self, block: Any) -> None:  # Numba's enters a context for the messages of errors
        self.pre_block(block)
        for instruction in block.body:
            self.loc = instruction.loc
            self.lower_inst(instruction)
        self.post_block(block)

    def lower_inst(self, inst: Any) -> None:  # Numba's makes a text of the instruction
        if isinstance(inst, numba_ir.Assign):
            value = self.lower_assign(self.typeof(inst.target.name), inst)
            self.storevar(value, inst.target.name)
        elif not isinstance(inst, numba_ir.Del):
            super().lower_inst(inst)
        elif self._is_counted(inst.value):
            self.delvar(inst.value)

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:  # Numba's loads the old value, to free it
        super().storevar(value, name, argidx if self._is_counted(name) else 1)

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:  # Numba's asks LLVM for the size
        return cgutils.alloca_once(self.builder, lltype, name=name)

    def _is_counted(self, name: str) -> bool:
        type_ = self.typeof(name)
        if type_ not in _counted:
            _counted[type_] = self.context.data_model_manager[type_].contains_nrt_meminfo()
        return self.context.enable_nrt and _counted[type_]


_counted: dict[types.Type, bool] = {}  # whether values of a type have references that are counted


class _SSA(untyped.ReconstructSSA):
    """Numba's, without the analysis of variables that `IRLegalization` makes once more."""

    def run_pass(self, state: Any) -> bool:
        state.func_ir = reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


class _Types(typed.NopythonTypeInference):
    """Numba's; but without reference counting, too, functions may return arrays: of memory that none of them owns."""

    def run_pass(self, state: Any) -> bool:
        target = state.targetctx
        state.targetctx = target.subtarget(enable_nrt=True)
        try:
            return super().run_pass(state)
        finally:
            state.targetctx = target


class _StripPhis(typed.PreLowerStripPhis):
    """Numba's, without that analysis."""

    def run_pass(self, state: Any) -> bool:
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


class _Lowering(typed.NativeLowering):
    """Numba's, by `_Lower` unless NUMBA_DEBUGINFO asks for all that a debugger needs."""

    @property
    def lowering_class(self) -> type:
        return lowering.Lower if vars(config)["DEBUGINFO_DEFAULT"] else _Lower


# Numba's, without those for what kernels do not have: closures, `with`, `None`, array expressions
_PASSES = [kind() for kind in (
    untyped.TranslateByteCode, untyped.FixupArgs, untyped.GenericRewrites, _SSA, _Types, _StripPhis, typed.IRLegalization,
    _Lowering, typed.NoPythonBackend)]


class _Manager(PassManager):
    """Runs the passes without an account of each."""

    def run(self, state: Any) -> None:
        for one in _PASSES:
            one.run_initialization(state)
            one.run_pass(state)
            one.run_finalizer(state)


class _Passes(compiler.CompilerBase):
    """How Numba asks for the passes."""

    def define_pipelines(self) -> list[PassManager]:
        return [_Manager("fastnet")]


class Machine(JITCodeLibrary):
    """Machine code of a kernel with all that is linked into it; only its wrapper can be called from outside."""

    options: ClassVar[dict[str, Any]] = {}  # Numba's, of how LLVM optimises

    def _optimize_functions(self, ll_module: Any) -> None:  # the whole is optimised once, when all of it is there
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and not function.name.startswith(("cfunc.", "_ZN7cpython")):
                function.linkage = "internal"
                # LLVM may now change its arguments, and MCJIT finds internal functions by name as well: code of a user's
                # that has the same helper linked in must not be given this one
                function.name = f"{function.name}.internal"
        passes = self._codegen._module_pass_manager(**self.options)
        if isinstance(passes, tuple):
            manager, builder = passes
            manager.run(self._final_module, builder)
        else:  # of Numba before 0.62
            passes.run(self._final_module)


class Control(Machine):
    """Machine code without loops over elements, which is optimised in half of the time."""

    options: ClassVar[dict[str, Any]] = {"opt": 1, "loop_vectorize": False, "slp_vectorize": False}


class _Linked(JITCodeLibrary):
    """LLVM code of a helper, to be linked into those who call it: not optimised, and never machine code."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class Kernel(CPUDispatcher):
    """Numba's dispatcher of a function, but for how and when it compiles."""

    def __init__(self, py_func: Callable, locals: Any = None, targetoptions: Any = None,
                 pipeline_class: Any = _Passes) -> None:
        super().__init__(py_func, locals, targetoptions, pipeline_class)
        self.library: type[Machine] = Machine
        self._linked: dict[tuple, Any] = {}  # by the arguments' types, and whether references are counted
        self._cache = KernelCache(py_func, CACHE)

    def compile(self, sig: Any) -> Any:
        """What Numba asks for when Python calls the function with arguments of new types."""
        arguments, _ = sigutils.normalize_signature(sig)
        if not self._can_compile and arguments not in self.overloads:
            raise RuntimeError("compilation disabled")
        self.prepare(arguments)
        return self.overloads[arguments].entry_point

    def prepare(self, arguments: tuple) -> None:
        """Have machine code for arguments of these types, for callers in Python."""
        if arguments in self.overloads:
            return
        with compiling():
            made = self._cache.load_overload(arguments, self.targetctx)
            (self._cache_misses if made is None else self._cache_hits)[arguments] += 1
            if made is None:
                counts = self.library is not Control or any(isinstance(argument, types.Array) for argument in arguments)
                made = compile_into(self.library, self, arguments, None, no_cfunc_wrapper=True, nrt=counts)
                self._cache.save_overload(arguments, made)
            if arguments not in self.overloads:  # another thread was first, or a finalizer: twice would be ambiguous
                self.add_overload(made)

    def get_call_template(self, args: Any, kws: Any) -> tuple:
        """What Numba asks for when compiled code calls the function; has its code ready to be linked.

        Called with a constant, Numba would compile a version for that very constant: the product alone, called with 0 and
        1 for many things, nine times over. One version for all numbers is enough.
        """
        pysig, folded = self._compiler.fold_argument_types(args, kws)
        folded = tuple(types.unliteral(arg) for arg in folded)
        linked = self._link(folded)
        name = self.py_func.__name__
        template = typing.make_concrete_template(f"Linked({name})", key=name, signatures=[linked.signature])
        return template, pysig, folded, {}

    def get_overload(self, sig: Any) -> Any:
        """By what Numba finds the function for these arguments when it lowers a call."""
        arguments, _ = sigutils.normalize_signature(sig)
        return self._link(tuple(arguments)).library

    def _link(self, arguments: tuple) -> Any:
        caller = ConfigStack().top_or_none()
        key = arguments, caller is None or caller.nrt  # as its caller, it counts references or does not
        if key not in self._linked:
            with compiling():
                made = compile_into(_Linked, self, arguments, None, no_compile=True, no_cpython_wrapper=True,
                                    no_cfunc_wrapper=True)
                if key not in self._linked:
                    self.targetctx.insert_user_function(made.library, made.fndesc, [made.library])
                    self._linked[key] = made
        return self._linked[key]


class ForEachType(Kernel):
    """A function of numbers for compiled code: one kernel for float32, another for float64.

    A branch would not do: both of its sides would be compiled.
    """

    def __init__(self, f32: Kernel, f64: Kernel) -> None:
        super().__init__(f64.py_func, targetoptions=f64.targetoptions)
        self._kernels = {types.float32: f32, types.float64: f64}

    def get_call_template(self, args: Any, kws: Any) -> tuple:
        return self._kernels[types.unliteral(args[0])].get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        arguments, _ = sigutils.normalize_signature(sig)
        return self._kernels[arguments[0]].get_overload(arguments)


def compile_into(library: type, kernel: Kernel, arguments: tuple, result: Any, **flags_on: bool) -> Any:
    """Compile a function into a library of this class, with more of Numba's flags."""
    if issubclass(library, Machine):
        progress.show(kernel.__name__.strip("_"))
    try:
        return _compiled(library, kernel, arguments, result, flags_on)
    except (errors.NumbaError, NotImplementedError, RuntimeError) as error:
        if _registries.complete or _reason(error) is not None:
            raise
        _registries.complete = True
        return _compiled(library, kernel, arguments, result, flags_on)


def _compiled(library: type, kernel: Kernel, arguments: tuple, result: Any, flags_on: dict[str, bool]) -> Any:
    flags = compiler.Flags()
    kernel.targetdescr.options.parse_as_flags(flags, kernel.targetoptions)
    for name, value in flags_on.items():
        setattr(flags, name, value)
    with _registries.loaded():
        code = library(codegen(), kernel.py_func.__qualname__)
        code.enable_object_caching()
        return compiler.compile_extra(_remembering, _target(), kernel.py_func, arguments, result, flags, {}, code,
                                      kernel._compiler.pipeline_class)


def _decorator(fastmath: set[str]) -> Callable[[Callable], Kernel]:
    """A decorator: nogil, because the pool's threads enter kernels; NumPy's rules for division by zero."""
    options = {"nopython": True, "nogil": True, "boundscheck": None, "error_model": "numpy", "fastmath": fastmath}
    return lambda function: Kernel(function, targetoptions=options)


jit = _decorator(FASTMATH)

# For arithmetic whose order is its meaning (an argument reduced in two parts): fused, but never reordered.
jit_exact = _decorator({"contract"})


def jit_control(function: Callable) -> Kernel:
    """Decorator like `jit`, for a function that holds no loops over elements: it starts threads, and calls kernels."""
    kernel = jit(function)
    kernel.library = Control
    return kernel
