"""Activations, element by element."""

from __future__ import annotations

from functools import partial

from evergrad.bench.cases.draw import EXP, TAILS, normal, pytorch
from evergrad.bench.op import Op

ELEMENTWISE_SHAPES = [(2, 3), *((n,) for n in TAILS), (4, 5, 3), (1000,), (), (0,)]


def activation(
    name: str,
    backward_by: str,
    flops: int,
    backward_flops: int,
    relative: tuple[str, ...],
    **options: tuple[str, ...],
) -> Op:
    """An elementwise function; backward takes its input or its output, `backward_by`.

    `options`: at most one, with its values.
    """
    choices = [{name: value} for name, values in options.items() for value in values] or [{}]
    return Op(
        name=name,
        draw=lambda rng, shape, **chosen: dict(x=normal(rng, *shape, scale=2.5), **chosen),
        shapes={name: "*" for name in ("x", "out", "dout", "dx", backward_by)},
        tests=[dict(shape=s, **chosen) for chosen in choices for s in ELEMENTWISE_SHAPES],
        large=dict(shape=(300, 1001), **choices[-1]),
        bench=[dict(shape=(2048, 3072), **chosen) for chosen in choices],
        flops=lambda c: flops * c.x.size,
        backward_flops=backward_flops / flops,
        grads=dict(x="dx"),
        invalid={option: ("other",) for option in options},
        relative=relative,
        torch=lambda F, t: partial(
            getattr(F if name in ("gelu", "silu") else pytorch(), name),
            t.x,
            **{option: getattr(t, option) for option in options},
        ),
    )


RELU = activation("relu", backward_by="out", flops=1, backward_flops=1, relative=("out", "dx"))
SIGMOID = activation(
    "sigmoid", backward_by="out", flops=EXP + 2, backward_flops=3, relative=("out",)
)
TANH = activation("tanh", backward_by="out", flops=EXP + 4, backward_flops=3, relative=("out",))
GELU = activation(
    "gelu", backward_by="x", flops=EXP + 10, backward_flops=EXP + 18, relative=(),
    approximate=("none", "tanh"),
)  # fmt: skip

SILU = activation("silu", backward_by="x", flops=EXP + 3, backward_flops=EXP + 6, relative=("out",))
