"""Sampling of a token."""

from __future__ import annotations

import math
from typing import Any

from evergrad.bench.cases.draw import EXP, TAILS, normal, over, pytorch
from evergrad.bench.op import Op


def torch_sample(F: Any, t: Any) -> Any:
    """The most likely ones in order, as many as are asked for, and one of them drawn."""
    count = min(getattr(t, "top_k", None) or t.logits.shape[-1], t.logits.shape[-1])

    def run() -> Any:
        scores, ids = (t.logits / t.temperature).topk(count)
        probabilities = scores.softmax(-1)
        if t.min_p:
            few = probabilities < t.min_p * probabilities[..., :1]
            probabilities = probabilities.masked_fill(few, 0.0)
        if t.top_p < 1:
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= t.top_p, 0.0)
        return ids.gather(-1, pytorch().multinomial(probabilities, 1))

    return run


SAMPLE = Op(
    name="sample",
    draw=lambda rng, rows, classes, **options: dict(
        logits=normal(rng, *rows, classes, scale=3.0),
        **{"seed": 1234, "offset": 0, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, **options},
    ),
    shapes=dict(logits="* classes"),
    tests=[
        dict(rows=(4,), classes=6, top_k=3),
        *over("classes", TAILS, rows=(40,)),
        *over("temperature", (0.0, 0.1, 0.7, 5.0, 100.0), rows=(40,), classes=500),
        *over("top_k", (1, 2, 30, 499, 500, 501), rows=(40,), classes=500, temperature=2.0),
        *over("top_p", (1e-6, 0.1, 0.9, 0.999), rows=(40,), classes=500),
        *over("min_p", (0.01, 0.5, 1.0), rows=(40,), classes=500),
        *over("offset", (1, 2**32 - 3, 2**64 - 1), rows=(9,), classes=33, seed=2**64 - 1),
        *over("top_k", (1, 3, 40, 70), rows=(9,), classes=5000, top_p=0.9),
        *over("top_p", (1e-6, 0.1, 0.999, 1.0), rows=(9,), classes=5000, min_p=1e-3),
        dict(rows=(3, 5), classes=300, temperature=3.0, top_k=100, top_p=0.8, min_p=0.01),
        *over("rows", ((), (0,)), classes=9),
    ],
    large=dict(rows=(200,), classes=1001, top_p=0.9),
    bench=[
        dict(rows=(1,), classes=50257, temperature=0.8, top_k=50, top_p=0.95),
        dict(rows=(32,), classes=50257, temperature=0.8, top_p=0.95),
    ],
    flops=lambda c: c.logits.size * EXP,
    invalid=dict(
        temperature=(-1.0, math.nan), top_k=(0, -3), top_p=(0.0, 1.1, math.nan),
        min_p=(-0.1, 1.1), seed=(-1,), offset=(2**64,),
    ),
    torch=torch_sample,
    same_numbers=False,
)  # fmt: skip
