"""Dropout."""

from __future__ import annotations

import math
from functools import partial

from evergrad.bench.cases.activation import ELEMENTWISE_SHAPES
from evergrad.bench.cases.draw import normal, over
from evergrad.bench.op import Op

DROPOUT = Op(
    name="dropout",
    draw=lambda rng, shape, p=0.5, training=True, seed=1234, offset=0: dict(
        x=normal(rng, *shape), p=p, training=training, seed=seed, offset=offset
    ),
    shapes=dict(x="*", out="*", dout="*", dx="*"),
    tests=[
        *over("shape", tuple(ELEMENTWISE_SHAPES)),
        *over("p", (0.0, 0.1, 0.999), shape=(131,)),
        *over("offset", (1, 2**32 - 40, 2**40 + 3), shape=(131,), p=0.3),
        *over("seed", (0, 2**64 - 1), shape=(131,), p=0.3),
        dict(shape=(131,), training=False),
    ],
    large=dict(shape=(300, 1001), p=0.1),
    bench=[dict(shape=(2048, 768), p=0.1)],
    flops=lambda c: 11 * c.x.size,  # integer operations of the generator
    backward_flops=1.0,
    grads=dict(x="dx"),
    invalid=dict(p=(-0.1, 1.0, 1.5, math.nan)),
    relative=("out", "dx"),
    torch=lambda F, t: partial(F.dropout, t.x, t.p, t.training),
    same_numbers=False,
)
