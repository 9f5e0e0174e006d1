"""Matrix products of arrays (`arrays`), the blocking around the micro-kernel, and the commands for threads."""
from fastnet.kernels.gemm.arrays import Packed, matmul, pack, syrk, vector_lanes
from fastnet.kernels.gemm.pixels import pixel_gram

__all__ = ["Packed", "matmul", "pack", "pixel_gram", "syrk", "vector_lanes"]
