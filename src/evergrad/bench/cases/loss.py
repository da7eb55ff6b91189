"""Losses."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from evergrad.bench.cases.draw import EXP, TAILS, Generator, integers, normal, over
from evergrad.bench.op import Op


def draw_cross_entropy(
    rng: Generator,
    rows: tuple[int, ...],
    classes: int,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignored: float = 0.0,
) -> dict[str, Any]:
    """A fraction `ignored` of the targets is not counted."""
    target = integers(rng, classes, *rows)
    return dict(
        logits=normal(rng, *rows, classes, scale=2.0),
        target=np.where(rng.random(rows) < ignored, -100, target),
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


REDUCTIONS = ("none", "sum", "mean")

CROSS_ENTROPY = Op(
    name="cross_entropy",
    draw=draw_cross_entropy,
    shapes=dict(logits="* classes", target="*", lse="*", dlogits="* classes"),
    tests=[
        dict(rows=(4,), classes=6),
        *over("classes", TAILS, rows=(5,), reduction="none"),
        *over("reduction", REDUCTIONS, rows=(3, 7), classes=35, ignored=0.4, label_smoothing=0.1),
        *over("reduction", REDUCTIONS, rows=(0,), classes=5),
        dict(rows=(3,), classes=5, ignored=1.0),
        dict(rows=(), classes=9, reduction="sum"),
        dict(rows=(33,), classes=1000, label_smoothing=0.2),
    ],
    large=dict(rows=(700,), classes=301, ignored=0.1, label_smoothing=0.1),
    bench=[dict(rows=(256,), classes=50257), dict(rows=(2048,), classes=1024)],
    flops=lambda c: c.logits.size * (EXP + 3),
    backward_flops=1.0,
    returns=("loss", "lse"),
    keep=dict(return_lse=True),
    grads=dict(logits="dlogits"),
    bounds=dict(target=lambda c: c.logits.shape[-1]),
    invalid=dict(reduction=("avg",), label_smoothing=(-0.1, 1.1, math.nan)),
    torch=lambda F, t: partial(
        F.cross_entropy, t.logits.reshape(-1, t.logits.shape[-1]), t.target.reshape(-1),
        label_smoothing=t.label_smoothing, reduction=t.reduction,
    ),
)  # fmt: skip


def pairwise_loss(name: str, target: str, flops: int) -> Op:
    """A loss between two arrays of one shape; `target` is "normal" or "probability"."""

    def draw(rng: Generator, shape: tuple[int, ...], reduction: str = "mean") -> dict[str, Any]:
        wanted = rng.random(shape) if target == "probability" else normal(rng, *shape)
        return dict(
            input=normal(rng, *shape, scale=2.0),
            target=np.asarray(wanted, np.float32),
            reduction=reduction,
        )

    return Op(
        name=name,
        draw=draw,
        shapes=dict(input="*", target="*", dx="*"),
        tests=[
            dict(shape=(4, 3)),
            *over("shape", tuple((n,) for n in TAILS), reduction="none"),
            *over("reduction", REDUCTIONS, shape=(6, 35)),
            *over("reduction", REDUCTIONS, shape=(0,)),
            dict(shape=(), reduction="sum"),
        ],
        large=dict(shape=(300, 1001)),
        bench=[dict(shape=(2048, 768))],
        flops=lambda c: flops * c.input.size,
        backward_flops=1.0,
        returns=("loss",),
        grads=dict(input="dx"),
        invalid=dict(reduction=("avg",)),
        torch=lambda F, t: partial(getattr(F, name), t.input, t.target, reduction=t.reduction),
    )


MSE = pairwise_loss("mse_loss", target="normal", flops=3)
BCE = pairwise_loss("binary_cross_entropy_with_logits", target="probability", flops=2 * EXP)
