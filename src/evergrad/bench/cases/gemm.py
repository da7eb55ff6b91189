"""Matrix products as they lie in memory, and the linear layer with what is fused to it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from evergrad import ops
from evergrad.bench.cases.draw import TAILS, Generator, normal, over, pytorch
from evergrad.bench.op import Op


def draw_matmul(
    rng: Generator,
    m: int,
    k: int,
    n: int,
    batch: tuple[int, ...] = (),
    shared: bool = False,
    transposed: tuple[bool, bool] = (False, False),
) -> dict[str, Any]:
    def operand(lead: tuple[int, ...], rows: int, cols: int, flip: bool) -> np.ndarray:
        if flip:
            return normal(rng, *lead, cols, rows).swapaxes(-1, -2)
        return normal(rng, *lead, rows, cols)

    return dict(
        a=operand(batch, m, k, transposed[0]),
        b=operand(() if shared else batch, k, n, transposed[1]),
    )


# (m, k, n) of what models of the sizes that are trained here multiply.
PRODUCTS = [
    (256, 768, 768), (256, 768, 2304), (256, 768, 3072), (256, 3072, 768), (256, 768, 50257),
    (1024, 1024, 1024), (2048, 2048, 2048), (64, 128, 128), (512, 384, 1536), (1, 576, 1536),
    (32, 384, 384), (1024, 64, 1024),
]  # fmt: skip


def products_of_linear() -> list[dict[str, Any]]:
    """The three products of ``out = x weight^T`` at each of `PRODUCTS`, as they lie in memory."""
    found = []
    for m, k, n in PRODUCTS:
        found.append(dict(m=m, k=k, n=n, transposed=(False, True)))  # out = x weight^T
        if (m, n, k) not in PRODUCTS:
            found.append(dict(m=m, k=n, n=k))  # dx = dout weight
        found.append(dict(m=n, k=m, n=k, transposed=(True, False)))  # dweight = dout^T x
    return found


MATMUL = Op(
    name="matmul",
    draw=draw_matmul,
    shapes=dict(a="m k", b="k n", out="m n", dout="m n"),
    strided=("a", "b", "dout"),
    tests=[
        dict(m=m, k=k, n=n)
        for m, k, n in [
            (3, 5, 4), (1, 1, 1), (1, 17, 33), (17, 1, 9), (5, 7, 1), (2, 3, 8), (6, 16, 16),
            (7, 15, 17), (12, 32, 31), (13, 64, 32), (65, 33, 97), (33, 300, 49), (97, 2, 130),
            (0, 4, 5), (4, 0, 5), (4, 5, 0),
        ]
    ]
    + over("transposed", ((True, False), (False, True), (True, True)), m=19, k=23, n=35)
    + [
        dict(m=5, k=7, n=9, batch=(2, 3)),
        dict(m=5, k=7, n=9, batch=(2, 3), shared=True),
        dict(m=6, k=9, n=17, batch=(4,), transposed=(True, True)),
        dict(m=5, k=7, n=9, batch=(0,)),
    ],
    large=dict(m=390, k=530, n=410),
    bench=[dict(m=m, k=k, n=n) for m, k, n in PRODUCTS],
    bench_forward=products_of_linear(),
    flops=lambda c: 2 * c.out.size * c.a.shape[-1],
    grads=dict(a="da", b="db"),
    torch=lambda F, t: partial(pytorch().matmul, t.a, t.b),
    numpy=lambda c: partial(np.matmul, c.a, c.b),
)  # fmt: skip


def draw_linear(
    rng: Generator,
    rows: tuple[int, ...],
    inputs: int,
    outputs: int,
    bias: bool = True,
    activation: str | None = None,
    residual: bool = False,
) -> dict[str, Any]:
    return dict(
        x=normal(rng, *rows, inputs),
        weight=normal(rng, outputs, inputs, scale=max(inputs, 1) ** -0.5),
        bias=normal(rng, outputs) if bias else None,
        activation=activation,
        residual=normal(rng, *rows, outputs) if residual else None,
    )


def saved_linear(c: Any) -> dict[str, Any]:
    """What the derivative of the activation needs: its input, or its output before the residual."""
    if c.activation is None:
        return {}
    if c.activation in ("gelu", "gelu_tanh", "silu"):
        return {"saved": c.pre}
    return {"saved": ops.linear(c.x, c.weight, c.bias, activation=c.activation)}


def torch_linear(F: Any, t: Any) -> Any:
    activation = {
        None: lambda y: y,
        "gelu": F.gelu,
        "gelu_tanh": partial(F.gelu, approximate="tanh"),
        "silu": F.silu,
    }.get(t.activation) or getattr(pytorch(), t.activation)

    def run() -> Any:
        out = activation(F.linear(t.x, t.weight, t.bias))
        return out if t.residual is None else out + t.residual

    return run


ACTIVATIONS = (None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu")

LINEAR = Op(
    name="linear",
    draw=draw_linear,
    shapes=dict(
        x="* in", weight="out in", bias="out", residual="* out", out="* out",
        dout="* out", saved="* out", dx="* in", dweight="out in", dbias="out",
    ),
    tests=[
        dict(rows=(3,), inputs=5, outputs=4, activation="gelu", residual=True),
        *over("activation", ACTIVATIONS, rows=(2, 9), inputs=17, outputs=35),
        *over("activation", ACTIVATIONS, rows=(7,), inputs=33, outputs=16, residual=True),
        *over("outputs", TAILS[::3], rows=(5,), inputs=8, activation="gelu_tanh"),
        dict(rows=(), inputs=9, outputs=7),
        dict(rows=(0,), inputs=4, outputs=3, activation="relu"),
        dict(rows=(3,), inputs=0, outputs=4),
        dict(rows=(7,), inputs=33, outputs=16, activation="gelu", bias=False),
        dict(rows=(130,), inputs=65, outputs=97, bias=False),
    ],
    large=dict(rows=(390,), inputs=210, outputs=530, activation="gelu_tanh", residual=True),
    bench=[
        dict(rows=(1024,), inputs=768, outputs=3072, activation="gelu_tanh"),
        dict(rows=(1024,), inputs=768, outputs=3072, activation="gelu"),
        dict(rows=(256,), inputs=768, outputs=3072, activation="gelu_tanh"),
        dict(rows=(256,), inputs=3072, outputs=768, residual=True),
        dict(rows=(512,), inputs=384, outputs=1536),
        dict(rows=(32,), inputs=384, outputs=384),
    ],
    flops=lambda c: 2 * c.out.size * c.x.shape[-1],
    returns=("out", "pre"),
    keep=dict(return_pre=True),
    saved=saved_linear,
    grads=dict(x="dx", weight="dweight", bias="dbias"),
    invalid=dict(activation=("swish", "")),
    torch=torch_linear,
)  # fmt: skip
