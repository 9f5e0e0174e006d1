"""How kernels are compiled, kept, and called by address: compiler pipeline (`jit`), cache, linking, memory layouts."""
