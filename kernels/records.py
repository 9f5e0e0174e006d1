"""The typed records that kernels pass to each other, in place of long rows of integers.

A compiled training step is a short program: an array of `OP` records that `interpreter.steps` runs in order. Layers make
them, see ``fastnet/program/builder.py``. Everything in a record is an int64, or a float64 that holds a number of either
dtype, so that one compiled interpreter serves every network.
"""
from typing import Any, NamedTuple

import llvmlite.ir as ir
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes
from numba import from_dtype, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


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


MATRIX = typeof(Mat(0, 0, 0, 0))


class Data(NamedTuple):
    """What is trained on."""

    source: int  # address of X (n, n_i), or of the Gram matrix G (n, n); rows contiguous, never written
    source_row: int  # distance of its rows, in elements
    targets: np.ndarray  # (n, n_outputs)
    order: np.ndarray  # int64 (n,): rows in the order of training
    gathered: bool  # the order is anything else than 0, 1, 2, ...: each batch's rows are copied to `rows` first
    rows: int  # address of memory for one batch's rows
    rows_row: int  # their distance, in elements


class Hyperparameters(NamedTuple):
    """Numbers of gradient descent; those that meet the parameters are of their dtype."""

    lr: np.floating
    momentum: np.floating
    weight_decay: np.floating
    optimizer: int  # SGD, MOMENTUM, ADAM, NESTEROV or RMSPROP
    moments: int  # ADAM, NESTEROV, RMSPROP: distance of the moments from the gradient, and from each other, in elements
    steps: int  # ADAM: mini-batches before this call
    beta1: np.floating  # ADAM: decay of m
    beta2: np.floating  # ADAM, RMSPROP: decay of v
    epsilon: np.floating


SGD, MOMENTUM, ADAM, NESTEROV, RMSPROP = range(5)

# Kinds of ops. CALL is one whose layer brings the kernel; see `fastnet.program.schedule.KERNELS` for the others.
CALL, GATHER, DENSE, MASK, SOFTMAX_CROSS_ENTROPY, MEAN_LOSS, UPDATE, UPDATE_BIAS, GRAM_FIRST, GRAM_UPDATE = range(10)

# How an op is shared out among the threads: by the samples of the batch, by outputs or inputs of the layer, or as it likes
SAMPLES, OUTPUTS, INPUTS, TEAM = range(4)

_MAT = np.dtype([("at", "i8"), ("row", "i8"), ("col", "i8"), ("vec", "i8")])


class ImageSizes(NamedTuple):
    """What ops of images know of them."""

    r: int = 0  # rows and columns of the input
    k: int = 0
    x_around: int = 0  # pixels of zero padding in memory, on each side of the input
    y_around: int = 0  # and of the output
    block: int = 0  # samples of a block


class Window(NamedTuple):
    """The windows of a convolution or pool."""

    high: int = 0
    wide: int = 0
    down: int = 1  # steps to the next window
    right: int = 1
    above: int = 0  # zero padding into which they reach
    left: int = 0


class FilterLayout(NamedTuple):
    """How the filters of a convolution and their gradients lie, and how they are computed with."""

    row: int = 0  # elements from one row of a filter's gradient to the next: whole vectors
    way: int = 0  # how the gradient is computed behind a pool, see ``conv/avx512.py``
    winograd: int = 0  # 1: the gradient of the input is computed by Winograd's algorithm
    copy: int = 0  # what the backward pass reads of the filters, see ``conv/ops.py``


class Channels(NamedTuple):
    """What is normalised."""

    values: int = 0  # of a channel in one sample
    row: int = 0  # distance of the rows of statistics, in elements


def _fields(kind: Any) -> np.dtype:
    return np.dtype([(name, "i8") for name in kind._fields])


OP = np.dtype([
    ("kind", "i8"),
    ("kernel", "i8"),  # address of a function compiled by `linking.op_kernel`
    ("back", "i8"),  # convolutions with a pool: address of `image.back_kernel`
    ("split", "i8"),
    ("wait", "i8"),  # 1: a barrier stands before it
    ("last", "i8"),  # SAMPLES: number of the op after the last that runs on the same samples without a barrier
    ("block", "i8"),  # SAMPLES: go through the run with so many samples at a time; 0 for all of the thread's at once
    ("group", "i8"),  # so many blocks that follow each other belong to one thread; 0 for 1
    ("from_data", "i8"),  # 1: matrix a is the batch's rows in the source of the data
    ("n", "i8"),  # columns of c
    ("k", "i8"),  # length of the inner sum
    ("c", _MAT),  # what is written
    ("a", _MAT),
    ("b", _MAT),
    ("bias", "i8"),  # address of a row to add, 0 for none
    ("relu", "i8"),  # 1: negative results become 0
    ("aux", "i8"),  # address of something more: the gradient's velocity, the losses of the rows
    ("packed", "i8"),  # UPDATE: address of the copy of the weights that the backward pass reads, 0 for none
    ("decays", "i8"),  # 1: weight decay applies
    ("number", "f8"),  # a constant of the layer, such as a slope
    ("seed", "i8"),  # of dropout
    ("image", _fields(ImageSizes)),
    ("window", _fields(Window)),
    ("filters", _fields(FilterLayout)),
    ("channels", _fields(Channels)),
])

OP_BYTES = OP.itemsize

# `gram.Gram.scales`: those of W = w_w W_0 + w_v V_0 - d_scale D.T X and of V = v_w W_0 + v_v V_0 + E.T X
SCALES = "w_w", "w_v", "v_w", "v_v", "d_scale"
_SCALES = [(name, "f8") for name in SCALES]
# `Hyperparameters`; numbers of either dtype are exact
_HYPER = [("lr", "f8"), ("momentum", "f8"), ("weight_decay", "f8"), ("optimizer", "i8"), ("moments", "i8"), ("beta1", "f8"),
          ("beta2", "f8"), ("epsilon", "f8")]

# The request to `interpreter.steps`: ops, rows, `Data`, `Gram` and `Hyperparameters` by address
JOB = np.dtype([
    ("ops", "i8"),
    ("count", "i8"),  # of ops
    ("double", "i8"),  # 1: elements are float64, 0: float32
    ("batch_size", "i8"),
    ("start", "i8"),  # rows of the order
    ("stop", "i8"),
    ("losses", "i8"),  # float64, a number for each batch
    ("correct", "i8"),  # ADAM: address of `ops.bias_corrected`, otherwise 0
    ("source", "i8"),
    ("source_row", "i8"),
    ("targets", "i8"),
    ("targets_row", "i8"),
    ("order", "i8"),
    ("gathered", "i8"),
    ("rows", "i8"),
    ("rows_row", "i8"),
    ("a0", "i8"),  # rows of A_0 and A_V are contiguous; av and e are 0 where there is none
    ("a0_row", "i8"),
    ("av", "i8"),
    ("av_row", "i8"),
    ("d", "i8"),
    ("bits", "i8"),
    ("e", "i8"),
    ("d_rows", "i8"),
    ("visited", "i8"),
    ("steps", "i8"),
    *_HYPER,
    *_SCALES,
])

# What a layer has the threads do to arrays, see ``gemm/commands.py``. Addresses, and distances in elements
COMMAND = np.dtype([
    ("kernel", "i8"),  # address of a function compiled by `linking.command_kernel`
    ("double", "i8"),  # 1: elements are float64, 0: float32
    ("c", "i8"),
    ("c_row", "i8"),
    ("a", "i8"),
    ("a_row", "i8"),
    ("a_k", "i8"),
    ("b", "i8"),
    ("b_k", "i8"),
    ("b_col", "i8"),
    ("b_vec", "i8"),
    ("m", "i8"),
    ("n", "i8"),
    ("k", "i8"),
    ("alpha", "f8"),
    ("beta", "f8"),
    ("bias", "i8"),  # address of a row to add, 0 for none
    ("relu", "i8"),
])

# What an op's kernel gets in addition to its op
CONTEXT = np.dtype([
    ("job", "i8"),  # address of the `JOB`
    ("thread", "i8"),  # whose memory to use
    ("part", "i8"),  # of `parts`, from 0: what to do, of an op that is not shared out by samples
    ("parts", "i8"),
    ("scratch", "i8"),  # address of the thread's own memory for packing
    ("block", "i8"),  # which of the blocks of samples is at work, from 0
    ("begins", "i8"),  # 1: it is the first one of this thread in the mini-batch
    ("n", "i8"),  # samples in the mini-batch
    ("first", "i8"),  # its first row's place in the order
    ("loss", "i8"),  # address of its loss
    ("source", "i8"),  # of the data: address of the first row
    ("source_row", "i8"),
    ("batch", "i8"),  # address of its first row in the source of the data
    ("batch_row", "i8"),  # distance of its rows, in elements
    ("order", "i8"),  # address of the numbers of its rows in the targets
    ("targets", "i8"),  # address
    ("targets_row", "i8"),  # in elements; a row's elements are neighbours
    *_HYPER,  # of the step
    *_SCALES,
])


@jit
def mat(record):
    """The `Mat` in a field of an op."""
    return Mat(record.at, record.row, record.col, record.vec)


@jit
def hyperparameters(context, one):
    """The hyperparameters in a `CONTEXT`, in the type of `one`."""
    return Hyperparameters(cast_like(context.lr, one), cast_like(context.momentum, one),
                           cast_like(context.weight_decay, one), context.optimizer, context.moments, 0,
                           cast_like(context.beta1, one), cast_like(context.beta2, one), cast_like(context.epsilon, one))


def _record_at(kind: np.dtype) -> Any:
    """A function for compiled code: the record of this kind at an address."""
    record = from_dtype(kind)

    @intrinsic
    def at(typingctx, address):
        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(record))

        return record(types.int64), codegen

    return at


op_at, context_at, job_at, command_at = map(_record_at, (OP, CONTEXT, JOB, COMMAND))


@intrinsic
def new_context(typingctx):
    """Address of a `CONTEXT` of zeros on the stack, good until the function that asks returns."""
    def codegen(context, builder, signature, arguments):
        kind = context.get_data_type(from_dtype(CONTEXT))
        room = cgutils.alloca_once_value(builder, ir.Constant(kind, None))
        room.align = 8
        return builder.ptrtoint(room, ir.IntType(64))

    return types.int64(), codegen


@intrinsic
def call_at(typingctx, kernel, *arguments):
    """Call the compiled function at address `kernel`: its arguments are whole numbers, and at last one of the elements."""
    kinds = arguments[0].types if isinstance(arguments[0], types.BaseTuple) else arguments
    expected = types.Tuple([types.int64] * (len(kinds) - 1) + [types.unliteral(kinds[-1])])

    def codegen(context, builder, signature, arguments):
        values = cgutils.unpack_tuple(builder, arguments[1])
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple(expected.types)), codegen


@intrinsic
def vector_at(typingctx, address, size, like):
    """The array of `size` elements of the type of `like` at an address."""
    array = types.Array(types.unliteral(like), 1, "C")

    def codegen(context, builder, signature, arguments):
        return _array_at(context, builder, array, *arguments[:-1])

    return array(types.int64, types.int64, like), codegen


@intrinsic
def rows_at(typingctx, address, rows, columns, like):
    """The C-contiguous array (rows, columns) of elements of the type of `like` at an address."""
    array = types.Array(types.unliteral(like), 2, "C")

    def codegen(context, builder, signature, arguments):
        return _array_at(context, builder, array, *arguments[:-1])

    return array(types.int64, types.int64, types.int64, like), codegen


def _array_at(context: Any, builder: ir.IRBuilder, kind: types.Array, address: ir.Value, *shape: ir.Value) -> ir.Value:
    """An array of this type; Numba would compile `numba.carray` anew for each type."""
    made = make_array(kind)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [size] if len(shape) == 1 else [builder.mul(shape[1], size), size]
    populate_array(made, data=builder.inttoptr(address, made.data.type), shape=shape, strides=strides, itemsize=size,
                   meminfo=None)
    return made._getvalue()


@jit
def row_of(record, i, count, one):
    """The first `count` elements of row i of a matrix of an op."""
    return vector_at(record.at + i * record.row * (VECTOR_BYTES // lanes(one)), count, one)


@jit
def input_row(op, context, i, one):
    """Row i of matrix a of an op: of a buffer, or of the mini-batch in the source of the data."""
    if op.from_data:
        return vector_at(context.batch + i * context.batch_row * (VECTOR_BYTES // lanes(one)), op.n, one)
    return row_of(op.a, i, op.n, one)
