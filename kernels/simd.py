"""Vector intrinsics: what NumPy-style loops cannot say to LLVM, one idea each.

Numba hands loops to LLVM's auto-vectoriser, which is good at element-wise work and poor at matrix products. The six
vector intrinsics here are written straight in LLVM IR instead:

======================  ==============================================================================
``micro_kernel``        rows x vecs vectors of C kept in registers over the whole k loop: the micro-kernel
``tile``                the micro-kernel of a size that is known at run time
``transpose``           one LANES x LANES block, by log2(LANES) rounds of shuffles
``copy_vector``         one vector from one address to another
``clear_vector``        one vector of zeros
``keep_positive``       one vector, times 0 where another is not above 0
======================  ==============================================================================

and the scalar ones under them serve memory by address and the threads' barrier. Addresses are plain int64 numbers of
bytes, strides are counted in elements; the element type is the type of the ``zero`` or ``alpha`` argument. All are made
at module level: an intrinsic made inside a function would get a new cache key in every process.
"""
import llvmlite.binding as llvm
import llvmlite.ir as ir
from fastnet.kernels.codegen.carried import codegen
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ADDRESS = ir.IntType(64)


def _target() -> tuple[str, str, str]:
    """Triple, CPU and features that kernels are compiled for: those of the kernels that the installation carries, or else
    those that Numba compiles for, the host's, but for NUMBA_CPU_NAME, _FEATURES and ENABLE_AVX."""
    return codegen().magic_tuple()


TARGET = _target()


def assembly(function: str) -> str:
    """The target's assembly of a function in LLVM's language.

    It shows what the CPU can do, which the list of features alone does not: Numba's list for an Arm CPU lacks most of
    those that LLVM knows by the CPU's name.
    """
    triple, cpu, features = TARGET
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    return machine.emit_assembly(llvm.parse_assembly(function))


def _vector_bits() -> int:
    """Width of the vector registers that LLVM uses: 512, 256 or 128.

    LLVM itself decides: one 16-lane addition is compiled, and its registers are looked at.
    """
    code = assembly("""
        define <16 x float> @probe(<16 x float> %a, <16 x float> %b) {
            %c = fadd <16 x float> %a, %b
            ret <16 x float> %c
        }""")
    return 512 if "zmm" in code else 256 if "ymm" in code else 128


VECTOR_BITS = _vector_bits()
VECTOR_BYTES = VECTOR_BITS // 8
ARM, X86 = TARGET[0].startswith(("aarch64", "arm64")), TARGET[0].startswith(("x86_64", "amd64"))

# Accumulators of one tile, rows x vecs, chosen so that they, one row of B and one element of A fit the register file:
# 32 registers with AVX-512 and on Arm, 16 otherwise. kernels/README.md has the measurements.
MR, NV = (8, 3) if VECTOR_BITS == 512 or ARM else (6, 2)
LEAST_ACROSS, ACROSS = 4, 8  # vectors of sums that stay in registers where zeros are left out; fewer wait for themselves


def lane_count(float_type) -> int:
    return VECTOR_BITS // float_type.bitwidth


def _llvm_float(float_type):
    return ir.FloatType() if float_type == types.float32 else ir.DoubleType()


class Emit:
    """A builder that knows one vector type: each method emits one operation."""

    def __init__(self, builder, float_type, lanes):
        self.builder, self.lanes = builder, lanes
        self.bytes = float_type.bitwidth // 8
        self.scalar = _llvm_float(float_type)
        self.vector = ir.VectorType(self.scalar, lanes)
        self.name = f"v{lanes}f{float_type.bitwidth}"
        self.zero = ir.Constant(self.vector, [0.0] * lanes)

    def address(self, base, *offsets):
        """base + the sum of the offsets, which are counted in elements."""
        for offset in offsets:
            base = self.builder.add(base, self.builder.mul(offset, ir.Constant(ADDRESS, self.bytes)))
        return base

    def load(self, address):
        return self.builder.load(self.builder.inttoptr(address, self.vector.as_pointer()), align=self.bytes)

    def store(self, value, address):
        self.builder.store(value, self.builder.inttoptr(address, self.vector.as_pointer()), align=self.bytes)

    def load_first(self, address, mask):
        """The lanes that mask names; 0 elsewhere, where memory is not touched."""
        pointer = self.vector.as_pointer()
        function = self._declared(f"llvm.masked.load.{self.name}.p0", self.vector,
                                  [pointer, ir.IntType(32), mask.type, self.vector])
        return self.builder.call(function, [self.builder.inttoptr(address, pointer),
                                            ir.Constant(ir.IntType(32), self.bytes), mask, self.zero])

    def store_first(self, value, address, mask):
        pointer = self.vector.as_pointer()
        function = self._declared(f"llvm.masked.store.{self.name}.p0", ir.VoidType(),
                                  [self.vector, pointer, ir.IntType(32), mask.type])
        self.builder.call(function, [value, self.builder.inttoptr(address, pointer),
                                     ir.Constant(ir.IntType(32), self.bytes), mask])

    def first(self, count):
        """The mask of the first `count` lanes."""
        lane = ir.Constant(ir.VectorType(ADDRESS, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lane, self.splat(count))

    def splat(self, value):
        """One scalar in every lane."""
        vector = ir.VectorType(value.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined),
                                           ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes))

    def broadcast(self, address):
        """The scalar at an address in every lane."""
        return self.splat(self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()), align=self.bytes))

    def unknown(self, number):
        """The same number, but LLVM cannot tell how it was computed: inline assembly without an instruction.

        On x86, an address can be a register plus a multiple of another one, which takes fewer instructions than what LLVM
        makes of steps that it knows. Arm's broadcast has no such address, so LLVM keeps its knowledge there.
        """
        if ARM:
            return number
        return self.builder.asm(ir.FunctionType(number.type, [number.type]), "", "=r,0", [number], side_effect=False)

    def rounded(self, vector):
        """The same vector, but LLVM cannot fuse its product with a later addition, as it does in a small tile."""
        if not (X86 or ARM):
            return vector
        kind = ir.FunctionType(vector.type, [vector.type])
        return self.builder.asm(kind, "", "=w,0" if ARM else "=v,0", [vector], side_effect=False)

    def fma(self, a, b, c):
        """a * b + c, fused where the CPU can; a CPU without FMA multiplies and adds, it does not call a library."""
        function = self._declared(f"llvm.fmuladd.{self.name}", self.vector, [self.vector] * 3)
        return self.builder.call(function, [a, b, c])

    def shuffle(self, a, b, lanes):
        index = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), list(lanes))
        return self.builder.shuffle_vector(a, b, index)

    def _declared(self, name, returns, arguments):
        # llvmlite's declare_intrinsic does not know vector types: declare the function by its name.
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(returns, arguments), name)


@intrinsic(prefer_literal=True)
def micro_kernel(typingctx, rows, vecs, a, a_row, a_k, b, b_k, b_vec, c, c_row, c_vec, tail, k, alpha, beta, bias, relu):
    """C = epilogue(alpha A B + beta C) for one tile of rows x (vecs * LANES) elements; the micro-kernel.

    Parameters
    ----------
    rows, vecs : literal int
        Size of the tile: `rows` rows of `vecs` vectors. All accumulators live in registers.
    a, a_row, a_k : int64
        Element (i, p) of A is at address a, plus i * a_row + p * a_k elements. Each is broadcast to a vector.
    b, b_k, b_vec : int64
        Vector v of row p of B is at address b, plus p * b_k + v * b_vec elements.
    c, c_row, c_vec : int64
        Vector v of row i of C is at address c, plus i * c_row + v * c_vec elements.
    tail : int64
        Lanes of the last vector of C that exist, 1 to LANES. No other is read or written. B must hold all lanes.
    k : int64
        Length of the inner sum; 0 is allowed.
    alpha, beta : float32 or float64
        Their type is the element type. With beta = 0, C is never read.
    bias : int64
        0, or the address of one row that is added to every row of the tile (its vectors stand as those of C do).
        It must hold all lanes of the last vector.
    relu : int64
        Not 0: negative results become 0. NaN stays NaN.
    """
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vecs, types.IntegerLiteral):
        return None
    rows_n, vecs_n, float_type = rows.literal_value, vecs.literal_value, alpha
    signature = types.void(rows, vecs, *[types.int64] * 11, float_type, float_type, types.int64, types.int64)

    def codegen(context, builder, signature, arguments):
        _emit_tile(builder, float_type, rows_n, vecs_n, arguments[2:])
        return context.get_dummy_value()

    return signature, codegen


def switch(builder, values, cases):
    """Yields each case, a tuple of numbers below 16; code that the caller then emits runs if the values equal the case."""
    def number(case):
        return sum(value << 4 * place for place, value in enumerate(case))

    key, after = ir.Constant(ADDRESS, 0), builder.append_basic_block("switch.after")
    for place, value in enumerate(values):
        key = builder.or_(key, builder.shl(value, ir.Constant(ADDRESS, 4 * place)))
    chosen = builder.switch(key, after)
    for case in cases:
        block = builder.append_basic_block("switch.case")
        chosen.add_case(ir.Constant(ADDRESS, number(case)), block)
        builder.position_at_end(block)
        yield case
        builder.branch(after)
    builder.position_at_end(after)


@intrinsic
def tile(typingctx, rows, vecs, a, a_row, a_k, b, b_k, b_vec, c, c_row, c_vec, tail, k, alpha, beta, bias, relu):
    """`micro_kernel` for a tile whose size is known at run time: MR, 4 or 1 rows of 1 to NV vectors."""
    float_type = alpha

    def codegen(context, builder, signature, arguments):
        rows, vecs, *rest = arguments
        for size in switch(builder, (rows, vecs), [(high, wide) for high in (MR, 4, 1) for wide in range(1, NV + 1)]):
            _emit_tile(builder, float_type, *size, rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13, float_type, float_type, types.int64, types.int64), codegen


def _emit_tile(builder, float_type, rows_n, vecs_n, arguments):
    """The code of one tile, for the arguments of `micro_kernel` after the first two."""
    a, a_row, a_k, b, b_k, b_vec, c, c_row, c_vec, tail, k, alpha, beta, bias, relu = arguments
    emit = Emit(builder, float_type, lane_count(float_type))
    constant = lambda value: ir.Constant(ADDRESS, value)  # noqa: E731
    at = [(i, v) for i in range(rows_n) for v in range(vecs_n)]
    row_bytes, vec_bytes, step_a, step_b = (emit.address(constant(0), stride) for stride in (a_row, b_vec, a_k, b_k))
    three_rows = emit.unknown(builder.mul(row_bytes, constant(3)))

    # for p in range(k): every C[i, v] += A[i, p] * B[p, v], the accumulators being phi nodes
    before = builder.block
    loop, body, after = (builder.append_basic_block(name) for name in ("tile.loop", "tile.body", "tile.after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    p, a_p, b_p = (builder.phi(ADDRESS) for _ in range(3))
    sums = {place: builder.phi(emit.vector) for place in at}
    builder.cbranch(builder.icmp_signed("<", p, k), body, after)
    builder.position_at_end(body)
    # LLVM would compute each row's address from the one before, with a distance that it loads from the stack each time.
    # `unknown` hides from it that the addresses advance in steps.
    b_first, fours = emit.unknown(b_p), [emit.unknown(a_p)]
    fours += [emit.unknown(builder.add(fours[0], builder.mul(row_bytes, constant(i)))) for i in range(4, rows_n, 4)]
    further = [constant(0), row_bytes, builder.mul(row_bytes, constant(2)), three_rows]
    b_row = [emit.load(builder.add(b_first, builder.mul(vec_bytes, constant(v)))) for v in range(vecs_n)]
    new = {}
    for i in range(rows_n):
        a_element = emit.broadcast(builder.add(fours[i // 4], further[i % 4]))
        for v in range(vecs_n):
            new[i, v] = emit.fma(a_element, b_row[v], sums[i, v])
    steps = [(p, constant(0), constant(1)), (a_p, a, step_a), (b_p, b, step_b)]
    nexts = [builder.add(value, step) for value, _, step in steps]
    builder.branch(loop)
    for (value, first, _), following in zip(steps, nexts, strict=True):
        value.add_incoming(first, before)
        value.add_incoming(following, body)
    for place in at:
        sums[place].add_incoming(emit.zero, before)
        sums[place].add_incoming(new[place], body)

    builder.position_at_end(after)
    _emit_epilogue(emit, sums, c, c_row, c_vec, tail, alpha, beta, bias, relu)


def _emit_epilogue(emit, sums, c, c_row, c_vec, tail, alpha, beta, bias, relu):
    """The code that makes one tile of C of its sums, a dictionary by row and vector; arguments as of `micro_kernel`."""
    builder, at = emit.builder, list(sums)
    constant = lambda value: ir.Constant(ADDRESS, value)  # noqa: E731
    # alpha * sums, then what was in C (unless beta = 0), the bias, ReLU; the last vector may have a short tail
    last = max(v for _, v in at)
    mask, whole = emit.first(tail), builder.icmp_signed("==", tail, constant(emit.lanes))
    c_at = {(i, v): emit.address(c, builder.mul(c_row, constant(i)), builder.mul(c_vec, constant(v))) for i, v in at}
    alphas, betas = emit.splat(alpha), emit.splat(beta)
    values = {place: emit.rounded(builder.fmul(alphas, sums[place])) for place in at}

    def chosen(condition, made, otherwise):
        """made() where the condition holds, else `otherwise`: a branch, since made() reads memory."""
        start = builder.block
        with builder.if_then(condition):
            results, end = made(), builder.block
        merged = {}
        for place in at:
            merged[place] = builder.phi(emit.vector)
            merged[place].add_incoming(otherwise[place], start)
            merged[place].add_incoming(results[place], end)
        return merged

    def plus_c():
        # a short last vector is rare: it may cost a masked load, the others are plain loads
        def load(place):
            return emit.load_first(c_at[place], mask) if place[1] == last else emit.load(c_at[place])
        return {place: emit.fma(betas, load(place), values[place]) for place in at}

    values = chosen(builder.fcmp_unordered("!=", beta, ir.Constant(beta.type, 0.0)), plus_c, values)

    def plus_bias():
        row = [emit.load(emit.address(bias, builder.mul(c_vec, constant(v)))) for v in range(last + 1)]
        return {(i, v): builder.fadd(values[i, v], row[v]) for i, v in at}

    values = chosen(builder.icmp_signed("!=", bias, constant(0)), plus_bias, values)

    def clipped():
        return {place: builder.select(builder.fcmp_ordered("<", values[place], emit.zero), emit.zero,
                                      values[place]) for place in at}

    values = chosen(builder.icmp_signed("!=", relu, constant(0)), clipped, values)
    for i, v in at:
        if v < last:
            emit.store(values[i, v], c_at[i, v])
    with builder.if_else(whole) as (then, otherwise):
        with then:
            for i, _ in at[::last + 1]:
                emit.store(values[i, last], c_at[i, last])
        with otherwise:
            for i, _ in at[::last + 1]:
                emit.store_first(values[i, last], c_at[i, last], mask)


@intrinsic
def add_nonzero_rows(typingctx, vecs, bits, within, rows, a, a_row, a_k, b, sums, fresh, zero):
    """sums[i] += the sum of A[i, p] B[p] over the numbers p, in ascending order, of the bits that are set in bits[i].

    Parameters
    ----------
    vecs : int64
        Vectors of a row of B and of the sums, `LEAST_ACROSS` to `ACROSS`; both lie without gaps.
    bits : int64
        Address of one int64 for each row of A.
    within : int64
        0, or bits that count as set in every row.
    rows : int64
        Rows of A.
    a, a_row, a_k : int64
        Element (i, p) of A is at address a, plus i * a_row + p * a_k elements.
    b, sums : int64
        Addresses.
    fresh : int64
        Not 0: the sums start from 0.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        for wide, in switch(builder, arguments[:1], [(wide,) for wide in range(LEAST_ACROSS, ACROSS + 1)]):
            _emit_nonzero_rows(builder, float_type, wide, arguments[1:-1])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10, float_type), codegen


def _emit_nonzero_rows(builder, float_type, vecs, arguments):
    """The code of `add_nonzero_rows` for this many vectors: all sums of a row stay in registers."""
    bits, within, rows, a, a_row, a_k, b, sums, fresh = arguments
    emit, row_bytes = Emit(builder, float_type, lane_count(float_type)), vecs * VECTOR_BYTES
    constant = lambda value: ir.Constant(ADDRESS, value)  # noqa: E731
    step_a, step_k = emit.address(constant(0), a_row), emit.address(constant(0), a_k)
    count_zeros = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ADDRESS, [ADDRESS, ir.IntType(1)]),
                                                 "llvm.cttz.i64")
    before = builder.block
    row, begin, old, loop, body, end, after = (builder.append_basic_block(f"nonzero.{name}") for name in
                                               ("row", "begin", "old", "loop", "body", "end", "after"))
    builder.branch(row)
    builder.position_at_end(row)
    i, a_i, sums_i = (builder.phi(ADDRESS) for _ in range(3))
    builder.cbranch(builder.icmp_signed("<", i, rows), begin, after)
    builder.position_at_end(begin)
    place = builder.inttoptr(builder.add(bits, builder.shl(i, constant(3))), ADDRESS.as_pointer())
    first = builder.or_(builder.load(place, align=8), within)
    builder.cbranch(builder.icmp_signed("!=", fresh, constant(0)), loop, old)
    builder.position_at_end(old)
    was = [emit.load(builder.add(sums_i, constant(v * VECTOR_BYTES))) for v in range(vecs)]
    builder.branch(loop)

    builder.position_at_end(loop)
    left = builder.phi(ADDRESS)
    totals = [builder.phi(emit.vector) for _ in range(vecs)]
    builder.cbranch(builder.icmp_signed("!=", left, constant(0)), body, end)
    builder.position_at_end(body)
    p = builder.call(count_zeros, [left, ir.Constant(ir.IntType(1), 1)])
    element = emit.broadcast(builder.add(a_i, builder.mul(p, step_k)))
    b_p = builder.add(b, builder.mul(p, constant(row_bytes)))
    new = [emit.fma(element, emit.load(builder.add(b_p, constant(v * VECTOR_BYTES))), totals[v]) for v in range(vecs)]
    rest = builder.and_(left, builder.sub(left, constant(1)))
    builder.branch(loop)
    for source, value in ((begin, first), (old, first), (body, rest)):
        left.add_incoming(value, source)
    for v in range(vecs):
        for source, value in ((begin, emit.zero), (old, was[v]), (body, new[v])):
            totals[v].add_incoming(value, source)

    builder.position_at_end(end)
    for v in range(vecs):
        emit.store(totals[v], builder.add(sums_i, constant(v * VECTOR_BYTES)))
    for value, start, step in ((i, constant(0), constant(1)), (a_i, a, step_a), (sums_i, sums, constant(row_bytes))):
        value.add_incoming(start, before)
        value.add_incoming(builder.add(value, step), end)
    builder.branch(row)
    builder.position_at_end(after)


@intrinsic
def finish_vector(typingctx, sums, c, tail, alpha, beta, bias, relu):
    """One vector of C = epilogue(alpha sums + beta C), as `micro_kernel` ends: the same bits."""
    float_type = alpha

    def codegen(context, builder, signature, arguments):
        emit, none = Emit(builder, float_type, lane_count(float_type)), ir.Constant(ADDRESS, 0)
        sums, c, *rest = arguments
        _emit_epilogue(emit, {(0, 0): emit.load(sums)}, c, none, none, *rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, float_type, float_type, types.int64, types.int64), codegen


@intrinsic
def nonzero_bits(typingctx, address, zero):
    """LANES bits: which elements of the vector at an address are not 0."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        emit = Emit(builder, float_type, lane_count(float_type))
        flags = builder.fcmp_unordered("!=", emit.load(arguments[0]), emit.zero)
        return builder.zext(builder.bitcast(flags, ir.IntType(emit.lanes)), ADDRESS)

    return types.int64(types.int64, float_type), codegen


@intrinsic
def set_where_nonzero(typingctx, words, address, bit, zero):
    """Set a bit in the word, of LANES at address `words`, of each element that is not 0 of the vector at an address."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        words, address, bit, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        kind = ir.VectorType(ADDRESS, emit.lanes)
        place = builder.inttoptr(words, kind.as_pointer())
        flags = builder.fcmp_unordered("!=", emit.load(address), emit.zero)
        new = builder.select(flags, emit.splat(bit), ir.Constant(kind, [0] * emit.lanes))
        builder.store(builder.or_(builder.load(place, align=8), new), place, align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, float_type), codegen


@intrinsic
def count_bits(typingctx, word):
    """How many bits of an int64 are set."""
    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(ADDRESS, [ADDRESS])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.i64"), arguments)

    return types.int64(types.int64), codegen


@intrinsic
def transpose(typingctx, to, to_row, source, source_row, zero):
    """to[p, i] = source[i, p] for one block of LANES x LANES elements; both have contiguous rows."""
    float_type = zero
    signature = types.void(*[types.int64] * 4, float_type)

    def codegen(context, builder, signature, arguments):
        to, to_row, source, source_row, _ = arguments
        lanes = lane_count(float_type)
        emit = Emit(builder, float_type, lanes)
        row = [emit.load(emit.address(source, builder.mul(source_row, ir.Constant(ADDRESS, i)))) for i in range(lanes)]
        # each round exchanges the off-diagonal halves of every 2h x 2h block
        h = lanes // 2
        while h:
            low = [lane if not lane & h else lane - h + lanes for lane in range(lanes)]
            high = [lane + h if not lane & h else lane + lanes for lane in range(lanes)]
            for i in range(lanes):
                if not i & h:
                    row[i], row[i + h] = emit.shuffle(row[i], row[i + h], low), emit.shuffle(row[i], row[i + h], high)
            h //= 2
        for i in range(lanes):
            emit.store(row[i], emit.address(to, builder.mul(to_row, ir.Constant(ADDRESS, i))))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_vector(typingctx, to, source, zero):
    """Copy LANES elements from address `source` to address `to`."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        emit = Emit(builder, float_type, lane_count(float_type))
        emit.store(emit.load(arguments[1]), arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, float_type), codegen


@intrinsic
def keep_positive(typingctx, to, where, zero):
    """Multiply the lanes at `to` by 0 where the lane at `where` is not above 0: the backward pass through ReLU (3.14).

    0 NaN and 0 inf are NaN, as in NumPy's product with a mask.
    """
    float_type = zero

    def codegen(context, builder, signature, arguments):
        to, where, _ = arguments
        emit = Emit(builder, float_type, lane_count(float_type))
        positive, value = builder.fcmp_ordered(">", emit.load(where), emit.zero), emit.load(to)
        emit.store(builder.select(positive, value, builder.fsub(value, value)), to)  # a difference, as 0 (-1) is -0
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, float_type), codegen


@intrinsic
def clear_vector(typingctx, to, zero):
    """Write LANES zeros at address `to`."""
    float_type = zero

    def codegen(context, builder, signature, arguments):
        emit = Emit(builder, float_type, lane_count(float_type))
        emit.store(emit.zero, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64, float_type), codegen


@intrinsic
def lanes(typingctx, zero):
    """Elements of zero's type in one vector register."""
    count = lane_count(zero)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(ADDRESS, count)

    return types.int64(zero), codegen


@intrinsic
def cast_like(typingctx, value, like):
    """value in the type of `like`: arithmetic with Python's numbers would make a float64 of a float32."""
    def codegen(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], value, like)

    return like(value, like), codegen


@intrinsic
def same_bits(typingctx, value, like):
    """The number of the type of `like` that has the bits of `value`."""
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(like))

    return like(value, like), codegen


@intrinsic
def noinline(typingctx):
    """Keep LLVM from copying the function that calls this into its callers, which compile in a fraction of the time."""
    def codegen(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def load(typingctx, address, zero):
    """The element at an address."""
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _llvm_float(zero).as_pointer())
        return builder.load(pointer, align=zero.bitwidth // 8)

    return zero(types.int64, zero), codegen


@intrinsic
def store(typingctx, address, value):
    """Write an element at an address."""
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _llvm_float(value).as_pointer())
        builder.store(arguments[1], pointer, align=value.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def pointer_at(typingctx, address, like):
    """An address as a pointer to elements of like's type, for `numba.carray`."""
    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], _llvm_float(like).as_pointer())

    return types.CPointer(like)(types.int64, like), codegen


def _prefetch(typingctx, address, to_write):
    def codegen(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, *[number] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(arguments[0], byte), *(ir.Constant(number, i) for i in (to_write, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Begin to bring the cache line of an address, which will be read, into the L1 cache."""
    return _prefetch(typingctx, address, 0)


@intrinsic
def prefetch_to_write(typingctx, address):
    """As `prefetch`, for a line that will be read and written."""
    return _prefetch(typingctx, address, 1)


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the int64 at an address, sequentially consistent; returns what it held before."""
    def codegen(context, builder, signature, arguments):
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], ADDRESS.as_pointer()), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the CPU that this is a waiting loop."""
    def codegen(context, builder, signature, arguments):
        triple = llvm.get_process_triple()
        if triple.startswith(("x86_64", "i686", "amd64")):
            name, operands = "llvm.x86.sse2.pause", []
        elif ARM:
            name, operands = "llvm.aarch64.hint", [ir.Constant(ir.IntType(32), 1)]
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address, sequentially consistent."""
    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], ADDRESS.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def compare_exchange(typingctx, address, expected, value):
    """Put a value at an address if the int64 there is as expected; returns whether it was. Sequentially consistent."""
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ADDRESS.as_pointer())
        pair = builder.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def load_int(typingctx, address):
    """The int64 at an address."""
    def codegen(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ADDRESS.as_pointer()), align=8)

    return types.int64(types.int64), codegen


@intrinsic
def store_int(typingctx, address, value):
    """Write an int64 at an address."""
    def codegen(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], ADDRESS.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def address_of_copy(typingctx, value):
    """Address of a copy of an int64 on the stack, good until the function that asks returns."""
    def codegen(context, builder, signature, arguments):
        return builder.ptrtoint(cgutils.alloca_once_value(builder, arguments[0]), ADDRESS)

    return types.int64(types.int64), codegen


@intrinsic
def call_system(typingctx, function, a, b, c, d, e):
    """Call the C function at an address with whole numbers or addresses; one with fewer parameters ignores the others."""
    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [ADDRESS] * 5)
        result = builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return builder.sext(result, ADDRESS)

    return types.int64(*[types.int64] * 6), codegen


@intrinsic
def call_kernel(typingctx, function, thread, threads, sync, scratch, job):
    """Call the compiled kernel at an address, see `linking.thread_kernel`."""
    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ADDRESS] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen
