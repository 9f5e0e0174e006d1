"""Matrix products of arrays (`arrays`), the blocking around the micro-kernel, and the commands for threads."""
from fastnet.kernels.gemm.arrays import Packed, few_rows_here, matmul, pack, product_here, syrk, vector_lanes
from fastnet.kernels.gemm.pixels import pixel_gram

__all__ = ["Packed", "few_rows_here", "matmul", "pack", "pixel_gram", "product_here", "syrk", "vector_lanes"]
