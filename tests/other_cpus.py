"""Machine code of the vector intrinsics for CPUs that this machine need not be."""
import re
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

PROGRAM = """
import importlib
import sys
from types import SimpleNamespace

import llvmlite.binding as llvm
import llvmlite.ir as ir
from fastnet.kernels.codegen import carried
from numba import types

triple, cpu, features, module, name, *arguments = sys.argv[1:]
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
carried.codegen = lambda: SimpleNamespace(magic_tuple=lambda: (triple, cpu, features))
from fastnet.kernels import simd

found = getattr(importlib.import_module(f"fastnet.kernels.{module}"), name)
kinds = [vars(types).get(argument) or types.literal(vars(simd)[argument]) for argument in arguments]
signature, emit = found._defn(None, *kinds)
llvm_kinds = [simd._llvm_float(kind) if isinstance(kind, types.Float) else simd.ADDRESS for kind in kinds]
made = ir.Module()
function = ir.Function(made, ir.FunctionType(ir.VoidType(), llvm_kinds), name)
builder = ir.IRBuilder(function.append_basic_block())
emit(SimpleNamespace(get_dummy_value=lambda: None), builder, signature, function.args)
builder.ret_void()
print(simd.assembly(str(made)))
"""


def innermost(triple, cpu, features, instruction, module, name, *arguments):
    """The innermost loop that has an instruction most often, and how often.

    The arguments of the intrinsic are names of Numba's types, or constants of `simd`. `instruction` is a regular expression.
    """
    llvm.initialize_all_targets()
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"llvmlite does not compile for {triple}")
    done = subprocess.run([sys.executable, "-c", PROGRAM, triple, cpu, features, module, name, *arguments],
                          capture_output=True, text=True, check=True)
    blocks = re.split(r"^(?=\S+:)", done.stdout, flags=re.MULTILINE)
    loops = [block for block in blocks if re.search(rf"\s{re.escape(block.partition(':')[0])}$", block, re.MULTILINE)]
    return max(((block, len(re.findall(rf"^\s(?:{{vex}}\s)?{instruction}", block, re.MULTILINE))) for block in loops),
               key=lambda found: found[1])
