"""Buckets of relative positions."""

from __future__ import annotations

from evergrad.bench.cases.draw import over
from evergrad.bench.op import Op

RELATIVE_POSITION_BUCKETS = Op(
    name="relative_position_buckets",
    draw=lambda rng, **options: options,
    shapes={},
    tests=[
        dict(tokens_q=5, tokens_k=7, num_buckets=8, max_distance=20, bidirectional=True),
        *over("bidirectional", (True, False), tokens_q=300, tokens_k=280),
        *over("tokens_q", (0, 1, 2, 33), tokens_k=40, bidirectional=False),
        *over("tokens_k", (0, 1, 2, 33), tokens_q=40),
        *over("num_buckets", (4, 6, 7, 64), tokens_q=70, tokens_k=90, max_distance=50),
    ],
    large=dict(tokens_q=400, tokens_k=500),
    bench=[dict(tokens_q=512, tokens_k=512)],
    flops=lambda c: 0.0,
    invalid=dict(
        tokens_q=(-1,), tokens_k=(-1,), num_buckets=(0, 2, 3), max_distance=(0, 2)
    ),
)  # fmt: skip
