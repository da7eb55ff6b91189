"""Softmax and its logarithm."""

from __future__ import annotations

from functools import partial

from evergrad.bench.cases.draw import EXP, TAILS, normal, over
from evergrad.bench.op import Op


def softmax(name: str, relative: tuple[str, ...]) -> Op:
    return Op(
        name=name,
        draw=lambda rng, shape, dim=-1: dict(x=normal(rng, *shape, scale=3.0), dim=dim),
        shapes=dict(x="*", out="*", dout="*", dx="*"),
        tests=[
            dict(shape=(3, 5)),
            *over("shape", tuple((3, n) for n in TAILS)),
            *over("dim", (0, 1, -2), shape=(5, 4, 19)),
            dict(shape=(7,)),
            dict(shape=(0, 5)),
            dict(shape=(5, 0)),
        ],
        large=dict(shape=(700, 301)),
        bench=[dict(shape=(24576, 256)), dict(shape=(256, 8192)), dict(shape=(8,))],
        flops=lambda c: c.x.size * (EXP + 4),
        backward_flops=4 / (EXP + 4) if name == "softmax" else 1.0,
        grads=dict(x="dx"),
        invalid=dict(dim=(2, -3)),
        relative=relative,
        torch=lambda F, t: partial(getattr(F, name), t.x, dim=t.dim),
    )


SOFTMAX = softmax("softmax", relative=("out",))
LOG_SOFTMAX = softmax("log_softmax", relative=())
