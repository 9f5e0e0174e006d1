"""The typed records that kernels pass to each other, in place of long rows of integers."""
from typing import NamedTuple


class Mat(NamedTuple):
    """A matrix by address. Strides are counted in elements; the element type is known from the kernel's other arguments.

    Element (i, j) is at ``at`` plus ``i * row + j * col`` elements, or, where the matrix lies in *vector columns*
    (``vec`` > 0), at ``i * row + j // LANES * vec + j % LANES``. Rows of contiguous elements are both: ``col`` is 1 and
    ``vec`` is LANES.
    """

    at: int
    row: int
    col: int
    vec: int
