"""How the filters of a convolution lie in compiled training."""
from __future__ import annotations

import numpy as np

from fastnet.kernels.conv import ops
from fastnet.kernels.conv.image import turned_tap
from fastnet.kernels.gemm import pack
from fastnet.program.images import row_length


class Filters:
    """How filters W (n_o, n_i, h, h) lie in the arenas: as the matrix (h h n_i, n_o) in vector columns.

    The backward pass reads a copy: by `ROWS` as (n_o, h, h n_i), each row filled up to whole vectors, or `TURNED`, rotated
    by 180 degrees for strides (down, right) as `image.input_gradient` takes them, with a row of zeros for biases behind.
    """

    def __init__(self, lanes: int, copy: int, strides: tuple[int, int] = (1, 1)) -> None:
        self.lanes, self.kind, self.strides = lanes, copy, strides

    def size(self, shape: tuple[int, ...]) -> int:
        """Elements in whole vectors."""
        n_o, n_i, h, _ = shape
        return -(-n_o // self.lanes) * self.lanes * n_i * h * h

    def pack(self, value: np.ndarray, flat: np.ndarray) -> None:
        """Write W."""
        flat[:] = pack(value.transpose(2, 3, 1, 0).reshape(-1, len(value))).data.ravel()

    def unpack(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Read W: a new array."""
        n_o, n_i, h, _ = shape
        columns = flat.reshape(-1, h * h * n_i, self.lanes).transpose(0, 2, 1).reshape(-1, h, h, n_i)[:n_o]
        return np.ascontiguousarray(columns.transpose(0, 3, 1, 2))

    def copy_size(self, shape: tuple[int, ...]) -> int:
        """Elements of the copy."""
        n_o, n_i, h, _ = shape
        if self.kind == ops.ROWS:
            return n_o * h * row_length(h * n_i, self.lanes)
        return row_length(n_i, self.lanes) * (h * h * n_o + 1)

    def copy(self, value: np.ndarray) -> np.ndarray:
        """The copy, flat."""
        n_o, n_i, h, _ = value.shape
        if self.kind == ops.ROWS:
            rows = np.zeros((n_o, h, row_length(h * n_i, self.lanes)), value.dtype)
            rows[:, :, :h * n_i] = value.transpose(0, 2, 3, 1).reshape(n_o, h, -1)
            return rows.ravel()
        turned = np.empty((h * h, n_o, n_i), value.dtype)
        for p, q in np.ndindex(h, h):
            turned[turned_tap(p, q, h, *self.strides)] = value[:, :, p, q]
        return np.append(pack(turned.reshape(-1, n_i)).data.ravel(), np.zeros(row_length(n_i, self.lanes), value.dtype))
