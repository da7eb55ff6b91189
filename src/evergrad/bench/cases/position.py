"""Buckets of relative positions."""

from __future__ import annotations

import math
from typing import Any

from evergrad.bench.cases.draw import over, pytorch
from evergrad.bench.op import Op


def torch_buckets(F: Any, t: Any) -> Any:
    """As T5 has it: near distances each a bucket, far ones by their logarithm."""
    torch = pytorch()
    bidirectional = getattr(t, "bidirectional", True)
    count = getattr(t, "num_buckets", 32) // (1 + bidirectional)
    near, furthest = count // 2, getattr(t, "max_distance", 128)

    def run() -> Any:
        place = torch.arange(t.tokens_q)[:, None] + t.tokens_k - t.tokens_q
        ahead = torch.arange(t.tokens_k) - place
        distance = ahead.abs() if bidirectional else (-ahead).clamp(min=0)
        far = (distance / near).log() * ((count - near) / math.log(furthest / near)) + near
        bucket = torch.where(distance < near, distance, far.long().clamp(max=count - 1))
        return bucket + count * (ahead > 0) if bidirectional else bucket

    return run


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
    torch=torch_buckets,
)  # fmt: skip
