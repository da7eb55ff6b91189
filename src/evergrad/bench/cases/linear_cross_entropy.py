"""The last layer and its loss in one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from evergrad.bench.cases.draw import TAILS, Generator, integers, normal, over, pytorch
from evergrad.bench.cases.loss import REDUCTIONS
from evergrad.bench.op import Op


def draw_linear_cross_entropy(
    rng: Generator,
    rows: tuple[int, ...],
    inputs: int,
    classes: int,
    bias: bool = False,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
    reduction: str = "mean",
    ignored: float = 0.0,
) -> dict[str, Any]:
    target = integers(rng, classes, *rows)
    return dict(
        x=normal(rng, *rows, inputs),
        weight=normal(rng, classes, inputs, scale=2 * max(inputs, 1) ** -0.5),
        bias=normal(rng, classes) if bias else None,
        target=np.where(rng.random(rows) < ignored, -100, target),
        label_smoothing=label_smoothing,
        softcap=softcap,
        reduction=reduction,
    )


def draw_linear_cross_entropy_with_grads(rng: Generator, **dims: Any) -> dict[str, Any]:
    args = draw_linear_cross_entropy(rng, **dims)
    each = args["reduction"] == "none"
    return dict(dout=normal(rng, *args["target"].shape) if each else 0.75, **args)


def torch_linear_cross_entropy(F: Any, t: Any) -> Any:
    def run() -> Any:
        logits = F.linear(t.x, t.weight, t.bias)
        if t.softcap:
            logits = t.softcap * (logits / t.softcap).tanh()
        return F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), t.target.reshape(-1),
            label_smoothing=t.label_smoothing, reduction=t.reduction,
        )  # fmt: skip

    return run


def torch_linear_cross_entropy_with_grads(F: Any, t: Any) -> Any:
    forward = torch_linear_cross_entropy(F, t)
    inputs = [x.requires_grad_() for x in (t.x, t.weight, t.bias) if x is not None]

    def run() -> Any:
        loss = forward()
        dout = pytorch().as_tensor(t.dout, dtype=loss.dtype).reshape(loss.shape)
        return loss.detach(), *pytorch().autograd.grad(loss, inputs, dout)

    return run


LINEAR_CROSS_ENTROPY = Op(
    name="linear_cross_entropy",
    draw=draw_linear_cross_entropy,
    shapes=dict(
        x="* in", weight="classes in", bias="classes", target="*", lse="*",
        dx="* in", dweight="classes in", dbias="classes",
    ),
    tests=[
        dict(rows=(4,), inputs=5, classes=6, bias=True),
        *over("classes", TAILS[::2], rows=(5,), inputs=7, reduction="none"),
        *over("inputs", (1, 16, 35), rows=(5,), classes=19, bias=True, softcap=3.0),
        *over(
            "reduction", REDUCTIONS,
            rows=(3, 7), inputs=9, classes=35, ignored=0.4, label_smoothing=0.1, softcap=2.0,
        ),
        *over("reduction", REDUCTIONS, rows=(0,), inputs=4, classes=5),
        dict(rows=(3,), inputs=4, classes=5, ignored=1.0),
        dict(rows=(), inputs=4, classes=9, reduction="sum", bias=True),
        dict(rows=(3,), inputs=0, classes=5, bias=True),
        dict(rows=(33,), inputs=20, classes=1000, label_smoothing=0.2),
        dict(rows=(9,), inputs=12, classes=9001, bias=True, ignored=0.2),  # three blocks
    ],
    large=dict(rows=(1300,), inputs=33, classes=4500, ignored=0.1, bias=True),
    bench=[
        dict(rows=(1024,), inputs=576, classes=49152),
        dict(rows=(256,), inputs=768, classes=50257),
    ],
    flops=lambda c: 2 * c.target.size * c.weight.size,
    backward_flops=2.0,  # what is useful: not the logits again
    returns=("loss", "lse"),
    keep=dict(return_lse=True),
    grads=dict(x="dx", weight="dweight", bias="dbias"),
    bounds=dict(target=lambda c: c.weight.shape[0]),
    invalid=dict(
        reduction=("avg",), label_smoothing=(-0.1, 1.1, math.nan),
        softcap=(-1.0, math.nan, 1e31, 1e-31),
    ),
    torch=torch_linear_cross_entropy,
)  # fmt: skip

LINEAR_CROSS_ENTROPY_WITH_GRADS = replace(
    LINEAR_CROSS_ENTROPY,
    name="linear_cross_entropy_with_grads",
    draw=draw_linear_cross_entropy_with_grads,
    flops=lambda c: 6 * c.target.size * c.weight.size,
    returns=("loss", "dx", "dweight", "dbias"),
    keep={},
    grads={},
    torch=torch_linear_cross_entropy_with_grads,
)
