"""Layer and root-mean-square norm, alone and after a residual."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from evergrad.bench.cases.draw import TAILS, Generator, normal, over
from evergrad.bench.op import Op


def draw_layer_norm(
    rng: Generator,
    rows: tuple[int, ...],
    normalized_shape: tuple[int, ...],
    affine: bool = True,
    bias: bool = True,
    eps: float = 1e-5,
    residual: bool = False,
) -> dict[str, Any]:
    shape = (*rows, *normalized_shape)
    return dict(
        x=normal(rng, *shape) + np.float32(0.5),
        normalized_shape=normalized_shape,
        weight=normal(rng, *normalized_shape) if affine else None,
        bias=normal(rng, *normalized_shape) if affine and bias else None,
        eps=eps,
        dresidual=normal(rng, *shape) if residual else None,
    )


LAYER_NORM = Op(
    name="layer_norm",
    draw=draw_layer_norm,
    shapes=dict(
        x="* n", weight="n", bias="n", out="* n", dout="* n", mean="*", rstd="*",
        dresidual="* n", dx="* n", dweight="n", dbias="n",
    ),
    tests=[
        dict(rows=(3,), normalized_shape=(6,), residual=True),
        *over("normalized_shape", tuple((n,) for n in TAILS if n > 4), rows=(5,)),
        *over("rows", ((), (1,), (0,), (2, 9), (67,)), normalized_shape=(19,), residual=True),
        dict(rows=(4,), normalized_shape=(3, 7)),
        dict(rows=(4,), normalized_shape=(33,), affine=False),
        dict(rows=(4,), normalized_shape=(33,), bias=False, eps=0.1),
    ],
    large=dict(rows=(700,), normalized_shape=(203,), residual=True),
    bench=[
        dict(rows=(2048,), normalized_shape=(768,)),
        dict(rows=(2048,), normalized_shape=(128,)),
    ],
    flops=lambda c: 8 * c.x.size,
    backward_flops=11 / 8,
    returns=("out", "mean", "rstd"),
    keep=dict(return_stats=True),
    grads=dict(x="dx", weight="dweight", bias="dbias"),
    invalid=dict(normalized_shape=((5,), (6, 1), ())),
    torch=lambda F, t: partial(F.layer_norm, t.x, t.normalized_shape, t.weight, t.bias, t.eps),
)  # fmt: skip


RMS_NORM = Op(
    name="rms_norm",
    draw=lambda rng, bias=False, **dims: draw_layer_norm(rng, bias=bias, **dims),
    shapes=dict(
        x="* n", weight="n", out="* n", dout="* n", rstd="*", dresidual="* n", dx="* n",
        dweight="n",
    ),
    tests=[
        dict(rows=(3,), normalized_shape=(6,), residual=True),
        *over("normalized_shape", tuple((n,) for n in TAILS), rows=(5,)),
        *over("rows", ((), (1,), (0,), (2, 9), (67,)), normalized_shape=(19,), residual=True),
        dict(rows=(4,), normalized_shape=(3, 7)),
        dict(rows=(4,), normalized_shape=(33,), affine=False, eps=0.1),
    ],
    large=dict(rows=(700,), normalized_shape=(203,), residual=True),
    bench=[
        dict(rows=(2048,), normalized_shape=(768,)),
        dict(rows=(2048,), normalized_shape=(128,)),
    ],
    flops=lambda c: 5 * c.x.size,
    backward_flops=8 / 5,
    returns=("out", "rstd"),
    keep=dict(return_stats=True),
    grads=dict(x="dx", weight="dweight"),
    invalid=dict(normalized_shape=((5,), (6, 1), ())),
    torch=lambda F, t: partial(F.rms_norm, t.x, t.normalized_shape, t.weight, t.eps),
)  # fmt: skip


def after_residual(op: Op) -> Op:
    """A norm of x + residual, which comes back too; `dresidual` is its cotangent."""

    def draw(rng: Generator, **dims: Any) -> dict[str, Any]:
        args = op.draw(rng, **dims)
        return dict(args, residual=normal(rng, *args["x"].shape))

    def torch(F: Any, t: Any) -> Any:
        def run() -> Any:
            total = SimpleNamespace(**{**vars(t), "x": t.x + t.residual})
            assert op.torch is not None
            return op.torch(F, total)(), total.x

        return run

    return replace(
        op,
        variant="residual",
        draw=draw,
        shapes=dict(op.shapes, residual="* n", total="* n"),
        tests=[dims for dims in op.tests if "residual" in dims or len(dims["rows"]) == 1][::3],
        returns=("out", "total", *op.returns[1:]),
        saved=lambda c: {"x": c.total},
        torch=torch,
    )


LAYER_NORM_RESIDUAL = after_residual(LAYER_NORM)
RMS_NORM_RESIDUAL = after_residual(RMS_NORM)
