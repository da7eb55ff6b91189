"""Optimizers: one flat buffer, or rows of a table, updated in place."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from evergrad.bench.cases.draw import TAILS, Generator, integers, normal, over, positive, pytorch
from evergrad.bench.op import Op

SIZES = [dict(n=n) for n in (5, *TAILS, 1000, 0)]


def draw_adam(
    rng: Generator, n: int, step: int = 3, decoupled: bool = True, **options: float
) -> dict[str, Any]:
    return dict(
        param=normal(rng, n), grad=normal(rng, n), exp_avg=normal(rng, n, scale=0.1),
        exp_avg_sq=positive(rng, n), step=step, lr=1e-2, decoupled=decoupled, **options,
    )  # fmt: skip


def torch_optimizer(name: str, step: int, buffers: dict[str, str], t: Any, **options: Any) -> Any:
    """A step of `torch.optim` from the same state; `buffers`: our names for it to PyTorch's."""
    torch = pytorch()
    param = t.param.detach().clone()
    param.grad = t.grad * getattr(t, "grad_scale", 1.0)
    optimizer = getattr(torch.optim, name)([param], lr=t.lr, **options)
    present = {k: v for k, v in buffers.items() if getattr(t, k, None) is not None}
    state = {theirs: getattr(t, ours).clone() for ours, theirs in present.items()}
    optimizer.state[param] = {"step": torch.tensor(float(step)), **state}

    def run() -> Any:
        optimizer.step()
        return (param, *(optimizer.state[param][theirs] for theirs in present.values()))

    return run


def torch_adam(F: Any, t: Any) -> Any:
    return torch_optimizer(
        "AdamW" if t.decoupled else "Adam",
        t.step - 1,
        dict(exp_avg="exp_avg", exp_avg_sq="exp_avg_sq"),
        t,
        betas=(getattr(t, "beta1", 0.9), getattr(t, "beta2", 0.999)),
        eps=getattr(t, "eps", 1e-8),
        weight_decay=getattr(t, "weight_decay", 0.0),
        fused=True,
    )


ADAM = Op(
    name="adam_step",
    draw=draw_adam,
    shapes=dict(param="n", grad="n", exp_avg="n", exp_avg_sq="n"),
    tests=[
        *SIZES,
        *over("decoupled", (True, False), n=131, step=1, weight_decay=0.1, grad_scale=0.3),
        dict(n=67, step=10000, eps=1e-3, beta1=0.8, beta2=0.95),
    ],
    large=dict(n=300001, weight_decay=0.1),
    bench=[dict(n=2**24, weight_decay=0.1), dict(n=124_439_808, weight_decay=0.1)],  # of GPT-2
    flops=lambda c: 16 * c.param.size,
    bytes=lambda c: 7 * c.param.nbytes,
    returns=(),
    updates=("param", "exp_avg", "exp_avg_sq"),
    invalid=dict(step=(0, -1)),
    torch=torch_adam,
)


def draw_sgd(rng: Generator, n: int, momentum: float = 0.9, **options: Any) -> dict[str, Any]:
    return dict(
        param=normal(rng, n), grad=normal(rng, n),
        momentum_buffer=normal(rng, n) if momentum else None, lr=1e-2, momentum=momentum, **options,
    )  # fmt: skip


def torch_sgd(F: Any, t: Any) -> Any:
    buffers = {} if getattr(t, "first", False) else dict(momentum_buffer="momentum_buffer")
    options = {k: getattr(t, k) for k in ("dampening", "nesterov", "weight_decay") if hasattr(t, k)}
    return torch_optimizer("SGD", 0, buffers, t, momentum=t.momentum, fused=True, **options)


SGD = Op(
    name="sgd_step",
    draw=draw_sgd,
    shapes=dict(param="n", grad="n", momentum_buffer="n"),
    tests=[
        *SIZES,
        dict(n=131, momentum=0.0, weight_decay=0.1, grad_scale=0.3),
        dict(n=131, nesterov=True, weight_decay=0.1),
        dict(n=131, dampening=0.4, grad_scale=0.3),
        dict(n=131, first=True, dampening=0.4),
        dict(n=131, first=True, nesterov=True),
    ],
    large=dict(n=300001, weight_decay=0.1),
    bench=[dict(n=2**24, weight_decay=0.1)],
    flops=lambda c: 6 * c.param.size,
    bytes=lambda c: 5 * c.param.nbytes,
    returns=(),
    updates=("param", "momentum_buffer"),
    torch=torch_sgd,
)

RMSPROP = Op(
    name="rmsprop_step",
    draw=lambda rng, n, **options: dict(
        param=normal(rng, n), grad=normal(rng, n), square_avg=positive(rng, n), lr=1e-2, **options
    ),
    shapes=dict(param="n", grad="n", square_avg="n"),
    tests=[*SIZES, dict(n=131, alpha=0.9, eps=1e-3, weight_decay=0.1, grad_scale=0.3)],
    large=dict(n=300001, weight_decay=0.1),
    bench=[dict(n=2**24)],
    flops=lambda c: 10 * c.param.size,
    bytes=lambda c: 5 * c.param.nbytes,
    returns=(),
    updates=("param", "square_avg"),
    torch=lambda F, t: torch_optimizer(
        "RMSprop", 2, dict(square_avg="square_avg"), t,
        **{k: getattr(t, k) for k in ("alpha", "eps", "weight_decay") if hasattr(t, k)},
    ),
)  # fmt: skip


def draw_rows(
    rng: Generator, num: int, dim: int, count: int, adam: bool = True, **options: Any
) -> dict[str, Any]:
    """A table of which `count` rows have a gradient."""
    table = dict(param=normal(rng, num, dim), grad=normal(rng, num, dim))
    if adam:
        table.update(exp_avg=normal(rng, num, dim, scale=0.1), exp_avg_sq=positive(rng, num, dim))
    rows = np.sort(rng.choice(num, count, replace=False)).astype(np.int64)
    if adam:
        options = dict(skipped=integers(rng, 5, count), step=9, **options)
    return dict(**table, rows=rows, lr=1e-2, **options)


ADAM_ROWS = Op(
    name="adam_step_rows",
    draw=draw_rows,
    shapes=dict(
        param="num dim", grad="num dim", exp_avg="num dim", exp_avg_sq="num dim", rows="k",
        skipped="k",
    ),
    tests=[
        dict(num=7, dim=5, count=3),
        *over("dim", TAILS[::3], num=9, count=4, weight_decay=0.1),
        *over("decoupled", (True, False), num=9, dim=33, count=5, weight_decay=0.1, grad_scale=0.3),
        *over("count", (0, 9), num=9, dim=17),
    ],
    large=dict(num=3000, dim=101, count=900, weight_decay=0.1),
    bench=[dict(num=50257, dim=768, count=256)],
    flops=lambda c: 16 * c.rows.size * c.param.shape[1],
    bytes=lambda c: 7 * 4 * c.rows.size * c.param.shape[1],
    returns=(),
    updates=("param", "exp_avg", "exp_avg_sq"),
    bounds=dict(rows=lambda c: len(c.param)),
    invalid=dict(step=(0, -1)),
)  # fmt: skip


def torch_sgd_rows(F: Any, t: Any) -> Any:
    rate = -t.lr * getattr(t, "grad_scale", 1.0)
    param = t.param.clone()
    return lambda: (param.index_add_(0, t.rows, t.grad.index_select(0, t.rows), alpha=rate),)


SGD_ROWS = Op(
    name="sgd_step_rows",
    draw=partial(draw_rows, adam=False),
    shapes=dict(param="num dim", grad="num dim", rows="k"),
    tests=[
        dict(num=7, dim=5, count=3),
        *over("dim", TAILS[::3], num=9, count=4, grad_scale=0.3),
        *over("count", (0, 9), num=9, dim=17),
    ],
    large=dict(num=3000, dim=101, count=900),
    bench=[dict(num=50257, dim=768, count=256)],
    flops=lambda c: 3 * c.rows.size * c.param.shape[1],
    bytes=lambda c: 3 * 4 * c.rows.size * c.param.shape[1],
    returns=(),
    updates=("param",),
    bounds=dict(rows=lambda c: len(c.param)),
    torch=torch_sgd_rows,
)

GRAD_NORM = Op(
    name="grad_norm",
    draw=lambda rng, n: dict(grad=normal(rng, n)),
    shapes=dict(grad="n"),
    tests=SIZES,
    large=dict(n=300001),
    bench=[dict(n=2**24)],
    flops=lambda c: 2 * c.grad.size,
    returns=("norm",),
    torch=lambda F, t: partial(pytorch().linalg.vector_norm, t.grad),
)
