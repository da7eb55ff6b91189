"""Gated activations."""

from __future__ import annotations

from functools import partial
from typing import Any

from evergrad.bench.cases.draw import EXP, TAILS, Generator, normal, over
from evergrad.bench.op import Op


def draw_gated(
    rng: Generator, rows: tuple[int, ...], n: int, packed: bool = False, **options: str
) -> dict[str, Any]:
    """`packed`: the halves of one array."""
    both = normal(rng, *rows, 2 * n, scale=2.0)
    gate, up = both[..., :n], both[..., n:]
    return dict(gate=gate if packed else gate.copy(), up=up if packed else up.copy(), **options)


def gated(name: str, options: tuple[dict[str, str], ...]) -> Op:
    def torch(F: Any, t: Any) -> Any:
        approximate = getattr(t, "approximate", None)
        activate = F.silu if approximate is None else partial(F.gelu, approximate=approximate)
        return lambda: activate(t.gate) * t.up

    return Op(
        name=name,
        draw=draw_gated,
        shapes=dict.fromkeys(("gate", "up", "out", "dout", "dgate", "dup"), "* n"),
        strided=("gate", "up", "dgate", "dup"),
        tests=[
            case
            for option in options
            for case in (
                dict(rows=(2, 3), n=5, **option),
                *over("n", TAILS[::2], rows=(3,), packed=True, **option),
                *over("rows", ((), (0,), (2, 9)), n=19, **option),
                dict(rows=(4,), n=0, **option),
                dict(rows=(3, 5), n=33, packed=True, **option),
            )
        ],
        large=dict(rows=(300,), n=501, packed=True, **options[-1]),
        bench=[
            case
            for option in options
            for case in (
                dict(rows=(2048,), n=1536, **option),
                dict(rows=(2048,), n=1536, packed=True, **option),
            )
        ],
        flops=lambda c: (EXP + (4 if name == "swiglu" else 11)) * c.gate.size,
        backward_flops=1.5,
        grads=dict(gate="dgate", up="dup"),
        invalid=dict(approximate=("other",)) if name == "geglu" else {},
        torch=torch,
    )


SWIGLU = gated("swiglu", ({},))
GEGLU = gated("geglu", (dict(approximate="none"), dict(approximate="tanh")))
