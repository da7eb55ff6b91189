"""The table of op cases: each op described once.

Parity over backends and ISAs, gradient checks, bad-input checks (tests/test_ops_*.py) and
benchmarks (benchmarks/, ``evergrad bench``) are all generated from it. `evergrad.bench.op.Op`
explains the fields. A new op is one more entry, in a file that is named as in `evergrad.ops`.
"""

from __future__ import annotations

from collections.abc import Iterator

from evergrad.bench.cases.activation import GELU, RELU, SIGMOID, SILU, TANH
from evergrad.bench.cases.attention import (
    ATTENTION,
    BIAS_ATTENTION,
    CHANGED_ATTENTION,
    MASKED_ATTENTION,
    PACKED_ATTENTION,
    PACKED_BIAS_ATTENTION,
)
from evergrad.bench.cases.dropout import DROPOUT
from evergrad.bench.cases.embedding import EMBEDDING, EMBEDDING_SUM
from evergrad.bench.cases.gated import GEGLU, SWIGLU
from evergrad.bench.cases.gemm import LINEAR, MATMUL
from evergrad.bench.cases.linear_cross_entropy import (
    LINEAR_CROSS_ENTROPY,
    LINEAR_CROSS_ENTROPY_WITH_GRADS,
)
from evergrad.bench.cases.loss import BCE, CROSS_ENTROPY, MSE
from evergrad.bench.cases.norm import LAYER_NORM, LAYER_NORM_RESIDUAL, RMS_NORM, RMS_NORM_RESIDUAL
from evergrad.bench.cases.optimizer import ADAM, ADAM_ROWS, GRAD_NORM, RMSPROP, SGD, SGD_ROWS
from evergrad.bench.cases.pooling import POOL
from evergrad.bench.cases.position import RELATIVE_POSITION_BUCKETS
from evergrad.bench.cases.quant import EMBEDDING_QUANTIZED, LINEAR_QUANTIZED
from evergrad.bench.cases.rotary import ROTARY, ROTARY_PACKED
from evergrad.bench.cases.sampling import SAMPLE
from evergrad.bench.cases.softmax import LOG_SOFTMAX, SOFTMAX
from evergrad.bench.op import Case, Op

OPS: tuple[Op, ...] = (
    MATMUL, LINEAR, LINEAR_QUANTIZED,
    SOFTMAX, LOG_SOFTMAX,
    ATTENTION, CHANGED_ATTENTION, MASKED_ATTENTION,
    BIAS_ATTENTION, PACKED_ATTENTION, PACKED_BIAS_ATTENTION,
    ROTARY, ROTARY_PACKED,
    LAYER_NORM, LAYER_NORM_RESIDUAL, RMS_NORM, RMS_NORM_RESIDUAL,
    RELU, SIGMOID, TANH, GELU, SILU, SWIGLU, GEGLU,
    EMBEDDING, EMBEDDING_QUANTIZED, EMBEDDING_SUM, POOL,
    CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, LINEAR_CROSS_ENTROPY_WITH_GRADS, MSE, BCE,
    DROPOUT, SAMPLE, RELATIVE_POSITION_BUCKETS,
    ADAM, SGD, RMSPROP, ADAM_ROWS, SGD_ROWS, GRAD_NORM,
)  # fmt: skip


def tested() -> Iterator[Case]:
    """Every case that tests draw."""
    for op in OPS:
        for dims in (*op.tests, op.large):
            yield Case(op, dims)


def benched(quick: bool = False) -> Iterator[Case]:
    """Every case that benchmarks measure; one for each op when `quick`."""
    for op in OPS:
        for dims in op.bench[:1] if quick else (*op.bench, *op.bench_forward):
            yield Case(op, dims)
