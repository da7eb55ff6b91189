"""Weights in few bits: the linear layer and the rows of an embedding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from evergrad import ops
from evergrad.bench.cases.draw import TAILS, Generator, integers, normal, over, pytorch
from evergrad.bench.cases.gemm import draw_linear, torch_linear
from evergrad.bench.op import Op


def stored(rng: Generator, rows: int, columns: int, kind: str) -> ops.QuantizedWeight:
    """A weight of any kind; `ops.quantize` does not make all, so blocks are drawn byte by byte."""
    if kind in MADE:
        return ops.quantize(normal(rng, rows, columns, scale=max(columns, 1) ** -0.5), kind)
    block, nbytes, halves = DRAWN[kind]
    data = rng.integers(0, 256, (rows, columns // block, nbytes), np.uint8)
    for at in halves:  # scales and minimums that leave weights of like size
        scale = np.asarray(rng.uniform(-0.01, 0.01, (*data.shape[:2], 1)), "<f2")
        data[..., at : at + 2] = scale.view(np.uint8)
    return ops.QuantizedWeight(data.reshape(rows, -1), kind, columns)


MADE = ("f16", "bf16", "q8_0", "q4_0", "q4_1")
#: Weights in a block, its bytes, and where its 16-bit floats lie.
DRAWN = {
    "q5_0": (32, 22, (0,)),
    "q5_1": (32, 24, (0, 2)),
    "q4_k": (256, 144, (0, 2)),
    "q6_k": (256, 210, (208,)),
}
KINDS = (*MADE, *DRAWN)


def draw_linear_quantized(
    rng: Generator, rows: tuple[int, ...], inputs: int, outputs: int, kind: str, **options: Any
) -> dict[str, Any]:
    args = draw_linear(rng, rows, inputs, outputs, **options)
    return args | dict(weight=stored(rng, outputs, inputs, kind))


def bytes_of_linear_quantized(c: Any) -> float:
    arrays = (c.x, c.bias, c.residual, c.out, c.weight)
    return sum(x.nbytes for x in arrays if x is not None)


def torch_linear_quantized(F: Any, t: Any) -> Any:
    t.weight = pytorch().as_tensor(t.weight.dequantize()).to(t.x.dtype)
    return torch_linear(F, t)


# (rows, inputs, outputs, kind) of a token and of a prompt through SmolLM2-135M.
SMOLLM2 = [
    (1, 576, 3072, "q4_1"), (1, 576, 960, "q4_1"), (1, 576, 576, "q4_1"), (1, 1536, 576, "q4_1"),
    (1, 576, 49152, "q8_0"), (1, 576, 1536, "q8_0"), (1, 576, 1536, "bf16"),
    (4, 576, 3072, "q4_1"), (512, 576, 3072, "q4_1"), (512, 1536, 576, "q4_1"),
]  # fmt: skip

LINEAR_QUANTIZED = Op(
    name="linear",
    variant="quantized",
    draw=draw_linear_quantized,
    shapes=dict(x="* in", bias="out", residual="* out", out="* out"),
    tests=[
        dict(rows=(3,), inputs=32, outputs=4, kind="q4_1", activation="gelu", residual=True),
        *over("kind", KINDS, rows=(1,), inputs=768, outputs=37),
        *over("kind", KINDS, rows=(2, 3), inputs=256, outputs=67, activation="silu"),
        *over("kind", KINDS, rows=(41,), inputs=1280, outputs=35, residual=True),
        *over("kind", ("f16", "bf16"), rows=(1,), inputs=77, outputs=19, bias=False),
        *over("kind", ("f16", "bf16"), rows=(30,), inputs=601, outputs=19, bias=False),
        *over("outputs", (1, 3, 4, 5, 131), rows=(), inputs=96, kind="q4_1", bias=False),
        *over("outputs", (1, 33), rows=(200,), inputs=544, kind="q8_0"),
        dict(rows=(0,), inputs=32, outputs=3, kind="q4_1"),
        dict(rows=(3,), inputs=0, outputs=4, kind="q8_0"),
        dict(rows=(3,), inputs=32, outputs=0, kind="q4_0", bias=False),
    ],
    large=dict(rows=(390,), inputs=608, outputs=530, kind="q4_1", activation="gelu_tanh"),
    bench=[
        dict(rows=(rows,), inputs=inputs, outputs=outputs, kind=kind, bias=False)
        for rows, inputs, outputs, kind in SMOLLM2
    ],
    flops=lambda c: 2 * c.out.size * c.x.shape[-1],
    bytes=bytes_of_linear_quantized,
    invalid=dict(activation=("swish", "")),
    torch=torch_linear_quantized,
)


EMBEDDING_QUANTIZED = Op(
    name="embedding",
    variant="quantized",
    draw=lambda rng, rows, num, dim, kind: dict(
        input=integers(rng, num, *rows), weight=stored(rng, num, dim, kind)
    ),
    shapes=dict(input="*", out="* dim"),
    tests=[
        dict(rows=(3,), num=7, dim=32, kind="q8_0"),
        *over("kind", KINDS, rows=(2, 9), num=11, dim=512),
        *over("dim", TAILS[::4], rows=(9,), num=5, kind="bf16"),
        *over("rows", ((), (0,), (150,)), num=4, dim=32, kind="q4_1"),
    ],
    large=dict(rows=(3000,), num=170, dim=96, kind="q8_0"),
    bench=[dict(rows=(512,), num=49152, dim=576, kind="q8_0")],
    flops=lambda c: 0.0,
    bytes=lambda c: c.input.nbytes + c.out.nbytes + c.input.size * c.weight.data.shape[1],
    bounds=dict(input=lambda c: c.weight.shape[0]),
    torch=lambda F, t: partial(F.embedding, t.input, pytorch().as_tensor(t.weight.dequantize())),
)
