"""Pooling of packed sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from evergrad.bench.cases.draw import TAILS, Generator, normal, over, pytorch
from evergrad.bench.op import Op


def draw_pool(
    rng: Generator, lengths: tuple[int, ...], dim: int, mode: str = "mean"
) -> dict[str, Any]:
    return dict(
        x=normal(rng, sum(lengths), dim),
        cu_seqlens=np.cumsum((0, *lengths), dtype=np.int64),
        mode=mode,
    )


def torch_pool(F: Any, t: Any) -> Any:
    """As it is written in PyTorch for sequences of one length; else one after the other."""
    lengths = np.diff(t.cu_seqlens)
    take = (lambda x, dim: x.mean(dim)) if t.mode == "mean" else lambda x, dim: x.select(dim, 0)

    def run() -> Any:
        if len(set(lengths)) == 1 and lengths[0]:
            return take(t.x.reshape(len(lengths), lengths[0], -1), 1)
        parts = t.x.split(lengths.tolist())
        return pytorch().stack([take(part, 0) if len(part) else part.sum(0) for part in parts])

    return run


POOL = Op(
    name="pool",
    draw=draw_pool,
    shapes=dict(
        x="total dim", cu_seqlens="offsets", out="seqs dim", dout="seqs dim", dx="total dim"
    ),
    tests=[
        dict(lengths=(3, 2, 4), dim=5),
        *over("dim", TAILS[::2], lengths=(3, 0, 7, 1), mode="cls"),
        *over("dim", TAILS[::2], lengths=(3, 0, 7, 1)),
        *over("lengths", ((0, 0), (1,)), dim=4),
    ],
    large=dict(lengths=tuple(range(60)), dim=67),
    bench=[dict(lengths=(50,) * 32, dim=16), dict(lengths=(256,) * 32, dim=384)],
    flops=lambda c: c.x.size,
    backward_flops=1.0,
    grads=dict(x="dx"),
    invalid=dict(mode=("max",), cu_seqlens=(np.array([0, 5, 3, 9]), np.array([1, 2, 3, 9]))),
    torch=torch_pool,
)  # fmt: skip
