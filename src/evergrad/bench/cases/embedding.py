"""Rows of tables, alone and summed."""

from __future__ import annotations

from functools import partial
from typing import Any

from evergrad.bench.cases.draw import TAILS, Generator, integers, normal, over
from evergrad.bench.op import Op

EMBEDDING = Op(
    name="embedding",
    draw=lambda rng, rows, num, dim: dict(
        input=integers(rng, num, *rows), weight=normal(rng, num, dim)
    ),
    shapes=dict(
        input="*", weight="num dim", out="* dim", dout="* dim", dweight="num dim"
    ),
    tests=[
        dict(rows=(3,), num=7, dim=5),
        *over("dim", TAILS[::2], rows=(2, 9), num=11),
        *over("rows", ((), (0,), (150,)), num=4, dim=33),
    ],
    large=dict(rows=(3000,), num=170, dim=101),
    bench=[dict(rows=(2048,), num=50257, dim=768), dict(rows=(2048,), num=1024, dim=128)],
    flops=lambda c: 0.0,
    bytes=lambda c: c.input.nbytes + 2 * c.out.nbytes,  # only the rows that are looked up
    saved=lambda c: {"num_embeddings": c.weight.shape[0]},
    grads=dict(weight="dweight"),
    bounds=dict(input=lambda c: c.weight.shape[0]),
    torch=lambda F, t: partial(F.embedding, t.input, t.weight),
)  # fmt: skip


def draw_embedding_sum(
    rng: Generator, rows: tuple[int, ...], num: tuple[int, ...], dim: int
) -> dict[str, Any]:
    """`num`: the rows of two or three tables."""
    names = ("input", "positions", "segments"), ("weight", "position_weight", "segment_weight")
    args: dict[str, Any] = {name: None for pair in names for name in pair}
    for indices, weight, count in zip(*names, num, strict=False):
        args[indices], args[weight] = integers(rng, count, *rows), normal(rng, count, dim)
    return args


def saved_embedding_sum(c: Any) -> dict[str, Any]:
    return dict(
        num_embeddings=len(c.weight),
        num_positions=len(c.position_weight),
        num_segments=0 if c.segment_weight is None else len(c.segment_weight),
    )


def torch_embedding_sum(F: Any, t: Any) -> Any:
    def run() -> Any:
        out = F.embedding(t.input, t.weight) + F.embedding(t.positions, t.position_weight)
        return out if t.segments is None else out + F.embedding(t.segments, t.segment_weight)

    return run


EMBEDDING_SUM = Op(
    name="embedding_sum",
    draw=draw_embedding_sum,
    shapes=dict(
        input="*", weight="num dim", positions="*", position_weight="places dim",
        segments="*", segment_weight="kinds dim", out="* dim", dout="* dim",
        dweight="num dim", dposition_weight="places dim", dsegment_weight="kinds dim",
    ),
    tests=[
        dict(rows=(8,), num=(9, 4, 2), dim=5),  # a cotangent larger than two of the tables
        *over("dim", TAILS[::2], rows=(2, 9), num=(11, 9)),
        *over("rows", ((), (0,), (150,)), num=(4, 150, 2), dim=33),
    ],
    large=dict(rows=(3000,), num=(170, 90, 2), dim=101),
    bench=[dict(rows=(2048,), num=(50257, 1024), dim=768)],
    flops=lambda c: c.out.size,
    bytes=lambda c: c.input.nbytes + c.positions.nbytes + 3 * c.out.nbytes,
    saved=saved_embedding_sum,
    grads=dict(
        weight="dweight", position_weight="dposition_weight", segment_weight="dsegment_weight"
    ),
    bounds=dict(
        input=lambda c: c.weight.shape[0],
        positions=lambda c: c.position_weight.shape[0],
        segments=lambda c: c.segment_weight.shape[0],
    ),
    torch=torch_embedding_sum,
)  # fmt: skip
