# ruff: noqa: ANN001, ANN201, ANN202, N803
# mypy: disable-error-code="no-untyped-def,misc"
"""Kernels in Triton's language; empty where Triton is not installed. `TRITON_INTERPRET=1` at import runs them on a CPU.

Where a weight's value stands is its block's entry in `starts`, plus the ones of the mask before it: those of whole
words by a running sum, those of its own word by counting. All reads are masked: damaged data gives wrong numbers.
"""

from __future__ import annotations

try:
    import triton
    from triton import language as tl
    from triton.language.extra import libdevice
except ImportError:  # it comes with torch for CUDA, not for CPUs
    triton = None

if triton is not None:

    @triton.jit
    def _ones(bits, NATIVE: tl.constexpr):
        """Ones of each uint32; the interpreter does not know the instruction."""
        if NATIVE:
            return libdevice.popc(bits.to(tl.int32, bitcast=True))
        bits = bits - ((bits >> 1) & 0x55555555)
        bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
        bits = (bits + (bits >> 4)) & 0x0F0F0F0F
        return ((bits * 0x01010101) >> 24).to(tl.int32)

    @triton.jit
    def _block(
        values, words, starts, scales, row, block, rows, count, words_stride, starts_stride, groups,
        BITS: tl.constexpr, NATIVE: tl.constexpr,
    ):  # fmt: skip
        """Weights [ROWS, 32, 32] of some rows and the 1024 columns of one block, in float32."""
        word = block * 32 + tl.arange(0, 32)
        there = (row[:, None] < rows) & (word[None, :] < words_stride)
        bits = tl.load(words + row.to(tl.int64)[:, None] * words_stride + word[None, :], mask=there, other=0)
        bits = bits.to(tl.uint32, bitcast=True)
        start = tl.load(starts + row.to(tl.int64) * starts_stride + block, mask=row < rows, other=0)
        ones = _ones(bits, NATIVE)
        first = start[:, None] + tl.cumsum(ones, axis=1) - ones
        place = tl.arange(0, 32).to(tl.uint32)
        one = tl.full((32,), 1, tl.uint32)
        lower = bits[:, :, None] & ((one << place) - one)[None, None, :]
        kept = ((bits[:, :, None] >> place[None, None, :]) & 1) != 0
        position = first[:, :, None] + _ones(lower, NATIVE)
        inside = kept & (position >= 0) & (position < count)
        if BITS == 0:
            return tl.load(values + position, mask=inside, other=0.0).to(tl.float32)
        if BITS == 4:  # the first of two is in the lower half; the sign comes from the upper end
            pair = tl.load(values + position // 2, mask=inside, other=0).to(tl.int32)
            number = ((pair << (28 - 4 * (position % 2))) >> 28).to(tl.float32)
        else:
            number = tl.load(values + position, mask=inside, other=0).to(tl.float32)
        group = word // 4  # of 128 columns
        there = (row[:, None] < rows) & (group[None, :] < groups)
        scale = tl.load(scales + row.to(tl.int64)[:, None] * groups + group[None, :], mask=there, other=0.0)
        return number * scale.to(tl.float32)[:, :, None]

    @triton.jit
    def multiply(
        values, words, starts, scales, inputs, bias, out, rows, columns, count, words_stride, starts_stride, groups,
        BATCH: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr, NATIVE: tl.constexpr,
    ):  # fmt: skip
        """out[b, r] = sum of a row's weights times the inputs [b, c], a block of columns at a time."""
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        batch = tl.arange(0, BATCH)
        sums = tl.zeros((ROWS, BATCH), tl.float32)
        for block in range(starts_stride):
            weights = _block(
                values,
                words,
                starts,
                scales,
                row,
                block,
                rows,
                count,
                words_stride,
                starts_stride,
                groups,
                BITS,
                NATIVE,
            )
            column = block * 1024 + tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
            for b in tl.static_range(BATCH):
                x = tl.load(inputs + b * columns + column, mask=column < columns, other=0.0).to(tl.float32)
                part = tl.sum(tl.sum(weights * x[None, :, :], axis=2), axis=1)
                sums += tl.where(batch[None, :] == b, part[:, None], 0.0)
        if BIAS:
            sums += tl.load(bias + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
        tl.store(out + batch[None, :] * rows + row[:, None], sums, mask=row[:, None] < rows)

    @triton.jit
    def expand(
        values, words, starts, scales, out, rows, columns, count, words_stride, starts_stride, groups,
        ROWS: tl.constexpr, BITS: tl.constexpr, NATIVE: tl.constexpr,
    ):  # fmt: skip
        """The weight [o, c] with its zeros, one block of columns of some rows."""
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        block = tl.program_id(1)
        weights = _block(
            values, words, starts, scales, row, block, rows, count, words_stride, starts_stride, groups, BITS, NATIVE
        )
        column = block * 1024 + tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
        place = row.to(tl.int64)[:, None, None] * columns + column[None, :, :]
        tl.store(out + place, weights, mask=(row[:, None, None] < rows) & (column[None, :, :] < columns))
