"""The table of op cases: each op described once.

Parity over backends and ISAs, gradient checks, bad-input checks (tests/test_ops_*.py) and
benchmarks (benchmarks/, ``evergrad bench``) are all generated from it. `evergrad.bench.op.Op`
explains the fields. A new op is one more entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from evergrad import ops
from evergrad.bench.op import Case, Op

# Sizes around the widths of vectors (4, 8, 16 lanes) and of loops unrolled over several of them.
TAILS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 130)

# What a transcendental costs at least: range reduction and a polynomial, in multiplications and
# additions (Cody-Waite with three, degree six to eight, reconstruction).
EXP = 20

Generator = np.random.Generator


def normal(rng: Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def positive(rng: Generator, *shape: int) -> np.ndarray:
    return normal(rng, *shape) ** 2 + np.float32(1e-4)


def integers(rng: Generator, bound: int, *shape: int) -> np.ndarray:
    return np.asarray(rng.integers(0, bound, shape), np.int64)


def over(name: str, values: tuple[Any, ...], **fixed: Any) -> list[dict[str, Any]]:
    """The same dimensions with `name` going through `values`."""
    return [{**fixed, name: value} for value in values]


# --- matrix products ----------------------------------------------------------------------------


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
    torch=lambda F, t: partial(_torch().matmul, t.a, t.b),
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
    }.get(t.activation) or getattr(_torch(), t.activation)

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
    t.weight = _torch().as_tensor(t.weight.dequantize()).to(t.x.dtype)
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


# --- softmax, attention, normalisation ----------------------------------------------------------


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


def draw_attention(
    rng: Generator,
    batch: int,
    tokens: tuple[int, int],
    heads: tuple[int, int],
    head_dim: int,
    is_causal: bool = False,
    scale: float | None = None,
    qkv: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """`tokens` and `heads`: of queries, of keys; `qkv`: views of one packed projection."""
    (tokens_q, tokens_k), (heads_q, heads_k) = tokens, heads
    if qkv:
        packed = normal(rng, batch, tokens_q, heads_q + 2 * heads_k, head_dim)
        query, key, value = np.split(packed, (heads_q, heads_q + heads_k), axis=2)
    else:
        query = normal(rng, batch, tokens_q, heads_q, head_dim)
        key = normal(rng, batch, tokens_k, heads_k, head_dim)
        value = normal(rng, batch, tokens_k, heads_k, head_dim)
    return dict(query=query, key=key, value=value, is_causal=is_causal, scale=scale, **options)


def draw_changed_attention(
    rng: Generator,
    batch: int,
    tokens: tuple[int, int],
    heads: tuple[int, int],
    head_dim: int,
    bias: tuple[int, int, int] | None = None,
    attn_mask: tuple[int, int, int] | None = None,
    additive: bool = False,
    alibi: bool = False,
    dropout_p: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """`bias` and `attn_mask`: their sizes of batch, heads, tokens_q; `additive`: a float mask."""
    args = draw_attention(rng, batch, tokens, heads, head_dim, **options)
    args["bias"] = None if bias is None else normal(rng, *bias, tokens[1])
    if attn_mask is not None:
        mask = rng.random((*attn_mask, tokens[1])) < 0.7
        floats = np.where(mask, normal(rng, *mask.shape), np.float32(-np.inf))
        args["attn_mask"] = floats if additive else mask
    if alibi:
        args["alibi_slopes"] = positive(rng, heads[0])
    # The counters cross a multiple of 2^32.
    return args | dict(dropout_p=dropout_p, seed=2**63 + 11, offset=2**32 - 40)


def draw_packed_attention(
    rng: Generator,
    tokens_q: tuple[int, ...],
    heads: tuple[int, int],
    head_dim: int,
    tokens_k: tuple[int, ...] | None = None,
    is_causal: bool = True,
    scale: float | None = None,
    bias: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Sequences of these lengths laid end to end."""
    tokens_k = tokens_q if tokens_k is None else tokens_k
    args = dict(
        query=normal(rng, sum(tokens_q), heads[0], head_dim),
        key=normal(rng, sum(tokens_k), heads[1], head_dim),
        value=normal(rng, sum(tokens_k), heads[1], head_dim),
        is_causal=is_causal,
        scale=scale,
        cu_seqlens_q=np.cumsum((0, *tokens_q)),
        cu_seqlens_k=np.cumsum((0, *tokens_k)),
        **options,
    )
    if bias:
        args["bias"] = normal(rng, 1, heads[0], max(tokens_q) + 1, max(tokens_k) + 2)
    return args


def sequences_of(c: Any) -> list[tuple[int, int]]:
    """Queries and keys of each sequence."""
    if hasattr(c, "cu_seqlens_q"):
        return list(
            zip(np.diff(c.cu_seqlens_q).tolist(), np.diff(c.cu_seqlens_k).tolist(), strict=True)
        )
    return [(c.query.shape[1], c.key.shape[1])] * c.query.shape[0]


def visible_to(c: Any, tokens_q: int, tokens_k: int) -> np.ndarray:
    """Which keys each query may see [tokens_q, tokens_k]."""
    left, right = getattr(c, "window_size", (-1, -1))
    if c.is_causal:
        right = 0
    ahead = np.arange(tokens_k) - (np.arange(tokens_q)[:, None] + tokens_k - tokens_q)
    seen = np.ones(ahead.shape, bool)
    if left >= 0:
        seen &= ahead >= -left
    if right >= 0:
        seen &= ahead <= right
    return seen


def attention_flops(c: Any) -> float:
    """Of the pairs that are not hidden by position: the work that is useful."""
    heads, head_dim = c.query.shape[-2:]
    pairs = sum(int(visible_to(c, *lengths).sum()) for lengths in sequences_of(c))
    return pairs * heads * (4 * head_dim + EXP)


def torch_attention(F: Any, t: Any) -> Any:
    """PyTorch's own kernel; sequences of several lengths are padded to the longest."""
    torch = _torch()

    def attend(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
        tokens_q, tokens_k = query.shape[1], key.shape[1]
        plain = mask is None and tokens_q == tokens_k and not hasattr(t, "window_size")
        if mask is None and not plain and (t.is_causal or hasattr(t, "window_size")):
            mask = torch.as_tensor(visible_to(t, tokens_q, tokens_k))
        out = F.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)),
            attn_mask=mask,
            is_causal=t.is_causal and plain,  # PyTorch aligns is_causal top-left
            scale=t.scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return out.transpose(1, 2)

    if not hasattr(t, "cu_seqlens_q"):
        return lambda: attend(t.query, t.key, t.value)
    lengths = sequences_of(t)
    if any(q != k for q, k in lengths) or not lengths:

        def each() -> Any:
            parts = (
                attend(q[None], k[None], v[None])[0]
                for q, k, v in zip(
                    t.query.split([q for q, _ in lengths]),
                    t.key.split([k for _, k in lengths]),
                    t.value.split([k for _, k in lengths]),
                    strict=True,
                )
            )
            return torch.cat([t.query[:0], *parts])

        return each
    # As models without packing do: padding is computed. It is made and undone outside of what is
    # timed as far as can be; causal queries never see it.
    longest = max(q for q, _ in lengths)
    held = torch.arange(longest) < torch.as_tensor([q for q, _ in lengths])[:, None]
    place = held.flatten().nonzero()[:, 0]
    query, key, value = (
        x.new_zeros(*held.shape, *x.shape[1:]).masked_scatter(held[..., None, None], x)
        for x in (t.query, t.key, t.value)
    )
    mask = held[:, None, None, :]
    if t.is_causal:
        mask = None if not hasattr(t, "window_size") else visible_to(t, longest, longest)
    elif hasattr(t, "window_size"):
        mask = mask & torch.as_tensor(visible_to(t, longest, longest))
    mask = None if mask is None else torch.as_tensor(mask)
    return lambda: attend(query, key, value, mask).flatten(0, 1).index_select(0, place)


def torch_changed_attention(F: Any, t: Any) -> Any:
    """The formula in the open: PyTorch has no kernel for all of it."""
    torch = _torch()
    heads, tokens_q, tokens_k = t.query.shape[2], t.query.shape[1], t.key.shape[1]
    seen = torch.as_tensor(visible_to(t, tokens_q, tokens_k))
    kept = None
    if getattr(t, "dropout_p", 0.0):
        ones = np.ones((t.query.shape[0], heads, tokens_q, tokens_k), np.float32)
        mask = ops.dropout(ones, t.dropout_p, seed=t.seed, offset=t.offset)
        kept = torch.as_tensor(mask != 0).to(t.query.dtype) / (1 - t.dropout_p)

    def run() -> Any:
        query, key, value = (x.transpose(1, 2) for x in (t.query, t.key, t.value))
        key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
        scale = query.shape[-1] ** -0.5 if t.scale is None else t.scale
        scores = scale * query @ key.transpose(-1, -2)
        if getattr(t, "softcap", 0.0):
            scores = t.softcap * torch.tanh(scores / t.softcap)
        if hasattr(t, "alibi_slopes"):
            place = torch.arange(tokens_q)[:, None] + tokens_k - tokens_q
            distance = (place - torch.arange(tokens_k)).abs()
            scores = scores - t.alibi_slopes[:, None, None] * distance
        if t.bias is not None:
            scores = scores + t.bias
        visible = seen
        if hasattr(t, "attn_mask"):
            if t.attn_mask.dtype == torch.bool:
                visible = visible & t.attn_mask
            else:
                scores = scores + t.attn_mask
                visible = visible & (t.attn_mask != -torch.inf)
        scores = scores.masked_fill(~visible, -torch.inf)
        empty = ~visible.any(-1, keepdim=True)
        probabilities = torch.softmax(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
        if kept is not None:
            probabilities = probabilities * kept
        return (probabilities @ value).transpose(1, 2)

    return run


ATTENTION_GRADS = dict(query="dquery", key="dkey", value="dvalue")
ATTENTION_SHAPES = dict(
    query="batch tq heads dim", key="batch tk kv dim", value="batch tk kv dim",
    out="batch tq heads dim", lse="batch heads tq", dout="batch tq heads dim",
    dquery="batch tq heads dim", dkey="batch tk kv dim", dvalue="batch tk kv dim",
)  # fmt: skip
ATTENTION_STRIDED = ("query", "key", "value", "dquery", "dkey", "dvalue")

ATTENTION = Op(
    name="attention",
    draw=draw_attention,
    shapes=ATTENTION_SHAPES,
    strided=ATTENTION_STRIDED,
    tests=[
        dict(batch=2, tokens=(3, 5), heads=(4, 2), head_dim=6),
        *over("head_dim", TAILS[::2], batch=1, tokens=(5, 9), heads=(2, 1), is_causal=True),
        *over("tokens", ((1, 1), (1, 65), (2, 3), (17, 33), (33, 33), (64, 64), (65, 130),
                         (130, 97), (9, 5), (5, 0), (0, 5)),
              batch=1, heads=(2, 2), head_dim=16, is_causal=True),
        *over("tokens", ((1, 70), (65, 65), (70, 33)), batch=2, heads=(6, 3), head_dim=24),
        # Few queries over keys enough for several parts, and a backward that is cut likewise.
        *over("tokens", ((1, 2100), (3, 1030), (11, 1500)), batch=1, heads=(2, 1), head_dim=16),
        dict(batch=1, tokens=(40, 2100), heads=(2, 2), head_dim=16, is_causal=True),
        dict(batch=2, tokens=(35, 35), heads=(3, 3), head_dim=32, is_causal=True, qkv=True),
        dict(batch=1, tokens=(35, 35), heads=(4, 2), head_dim=20, qkv=True),
        dict(batch=1, tokens=(9, 17), heads=(5, 1), head_dim=8, is_causal=True, scale=0.7),
        *over("window_size", ((0, 0), (3, 2), (-1, 5), (60, -1), (1, 0), (1000, 1000)),
              batch=1, tokens=(90, 141), heads=(2, 1), head_dim=16),
        dict(batch=1, tokens=(150, 150), heads=(2, 2), head_dim=8, is_causal=True,
             window_size=(17, -1)),
        dict(batch=1, tokens=(70, 30), heads=(2, 2), head_dim=8, window_size=(4, 2)),
        dict(batch=0, tokens=(3, 3), heads=(2, 2), head_dim=8),
    ],
    large=dict(batch=2, tokens=(90, 140), heads=(4, 2), head_dim=40, is_causal=True),
    bench=[
        dict(batch=8, tokens=(256, 256), heads=(6, 6), head_dim=64, is_causal=True),
        dict(batch=8, tokens=(256, 256), heads=(6, 6), head_dim=64),
        dict(batch=4, tokens=(64, 64), heads=(12, 12), head_dim=64, is_causal=True),
        dict(batch=16, tokens=(128, 128), heads=(12, 12), head_dim=32, is_causal=True),
        dict(batch=16, tokens=(128, 128), heads=(12, 12), head_dim=32),
        dict(batch=2, tokens=(1024, 1024), heads=(12, 12), head_dim=64, is_causal=True),
        dict(batch=2, tokens=(1024, 1024), heads=(12, 12), head_dim=64),
        dict(batch=1, tokens=(4096, 4096), heads=(8, 8), head_dim=64, is_causal=True),
        dict(batch=1, tokens=(4096, 4096), heads=(8, 8), head_dim=64),
        dict(batch=1, tokens=(4096, 4096), heads=(1, 1), head_dim=64, is_causal=True),
        dict(batch=1, tokens=(4096, 4096), heads=(4, 4), head_dim=64, is_causal=True,
             window_size=(256, 0)),
        dict(batch=1, tokens=(1, 4096), heads=(32, 8), head_dim=64),
        dict(batch=1, tokens=(4, 4096), heads=(9, 3), head_dim=64, is_causal=True),
    ],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS,
    unit=1.0,
    torch=torch_attention,
)  # fmt: skip

CHANGED_ATTENTION = Op(
    name="attention",
    variant="changed",
    draw=draw_changed_attention,
    shapes={**ATTENTION_SHAPES, "alibi_slopes": "heads"},
    strided=ATTENTION_STRIDED,
    tests=[
        dict(batch=3, tokens=(3, 5), heads=(4, 2), head_dim=6, alibi=True, softcap=2.0,
             window_size=(-1, -1), dropout_p=0.25),
        *over("attn_mask", ((1, 1, 1), (2, 1, 1), (1, 6, 33), (2, 6, 33)),
              batch=2, tokens=(33, 70), heads=(6, 3), head_dim=8),
        *over("additive", (False, True), attn_mask=(2, 1, 9),
              batch=2, tokens=(9, 17), heads=(2, 2), head_dim=8, is_causal=True),
        *over("tokens", ((1, 1), (1, 70), (7, 7), (40, 30), (70, 141)), batch=1, heads=(4, 2),
              head_dim=16, softcap=0.7, is_causal=True),
        *over("tokens", ((1, 1), (1, 70), (7, 7), (40, 30), (70, 141)), batch=1, heads=(4, 2),
              head_dim=16, alibi=True),
        *over("tokens", ((1, 7), (1, 1100), (7, 7), (40, 30), (70, 141)), batch=2, heads=(4, 2),
              head_dim=16, dropout_p=0.5, is_causal=True),
        dict(batch=0, tokens=(3, 3), heads=(2, 2), head_dim=8, softcap=1.0),
    ],
    large=dict(batch=2, tokens=(90, 140), heads=(4, 2), head_dim=40, is_causal=True,
               attn_mask=(2, 1, 1), softcap=5.0, alibi=True, dropout_p=0.2),
    bench=[
        dict(batch=4, tokens=(256, 256), heads=(8, 8), head_dim=64, attn_mask=(4, 1, 1)),
        dict(batch=4, tokens=(256, 256), heads=(8, 8), head_dim=64, is_causal=True, softcap=50.0),
        dict(batch=4, tokens=(256, 256), heads=(8, 8), head_dim=64, is_causal=True, alibi=True),
        dict(batch=4, tokens=(256, 256), heads=(8, 8), head_dim=64, is_causal=True, dropout_p=0.1),
    ],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS,
    unit=1.0,
    invalid=dict(
        window_size=((-2, 0), (0, -2), (1,), (1, 2, 3)),
        softcap=(-1.0, np.inf, np.nan, 1e31, 1e-31),
        dropout_p=(-0.1, 1.0), seed=(-1, 2**64), offset=(-1, 2**64),
    ),
    torch=torch_changed_attention,
)  # fmt: skip

MASKED_ATTENTION = Op(
    name="attention",
    variant="mask",
    draw=draw_changed_attention,
    shapes={**ATTENTION_SHAPES, "attn_mask": "batch heads tq tk"},
    strided=ATTENTION_STRIDED,
    tests=[
        dict(batch=3, tokens=(3, 5), heads=(4, 2), head_dim=6, attn_mask=(3, 4, 3), additive=True),
        dict(batch=2, tokens=(35, 50), heads=(4, 2), head_dim=16, attn_mask=(2, 4, 35)),
    ],
    large=dict(batch=2, tokens=(90, 130), heads=(4, 2), head_dim=24, attn_mask=(2, 4, 90),
               additive=True),
    bench=[],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS,
    unit=1.0,
)  # fmt: skip

BIAS_ATTENTION = Op(
    name="attention",
    variant="bias",
    draw=draw_changed_attention,
    shapes={**ATTENTION_SHAPES, "bias": "one heads tq tk", "dbias": "one heads tq tk"},
    strided=(*ATTENTION_STRIDED, "bias"),
    tests=[
        dict(batch=2, tokens=(3, 5), heads=(4, 2), head_dim=6, bias=(1, 4, 3)),
        *over("bias", ((1, 1, 35), (2, 1, 1), (1, 4, 1), (2, 4, 35)),
              batch=2, tokens=(35, 50), heads=(4, 2), head_dim=16),
        *over("additive", (False, True), attn_mask=(2, 1, 9), bias=(1, 2, 9),
              batch=2, tokens=(9, 17), heads=(2, 2), head_dim=8, is_causal=True),
        dict(batch=2, tokens=(70, 141), heads=(4, 2), head_dim=24, is_causal=True, bias=(1, 4, 70),
             attn_mask=(2, 1, 1), alibi=True, softcap=3.0, window_size=(50, -1), dropout_p=0.1),
        dict(batch=1, tokens=(40, 2100), heads=(1, 1), head_dim=8, bias=(1, 1, 40), softcap=3.0),
        dict(batch=0, tokens=(3, 3), heads=(2, 2), head_dim=8, bias=(1, 2, 3)),
    ],
    large=dict(batch=2, tokens=(90, 140), heads=(4, 2), head_dim=40, is_causal=True,
               bias=(1, 4, 90), attn_mask=(2, 1, 1), softcap=5.0, alibi=True, dropout_p=0.2),
    bench=[dict(batch=4, tokens=(256, 256), heads=(8, 8), head_dim=64, bias=(1, 8, 256))],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS | dict(bias="dbias"),
    unit=1.0,
    torch=torch_changed_attention,
)  # fmt: skip

PACKED_ATTENTION = Op(
    name="attention",
    variant="packed",
    draw=draw_packed_attention,
    shapes=dict(
        query="tq heads dim", key="tk kv dim", value="tk kv dim", out="tq heads dim",
        lse="heads tq", dout="tq heads dim", dquery="tq heads dim", dkey="tk kv dim",
        dvalue="tk kv dim", cu_seqlens_q="nseq+1", cu_seqlens_k="nseq+1",
    ),
    strided=ATTENTION_STRIDED,
    tests=[
        dict(tokens_q=(2, 3), tokens_k=(4, 3), heads=(4, 2), head_dim=6, is_causal=False),
        dict(tokens_q=(1, 16, 7, 33, 0, 5), heads=(2, 2), head_dim=16),
        dict(tokens_q=(3, 9, 1), tokens_k=(5, 2, 0), heads=(3, 1), head_dim=9),
        dict(tokens_q=(1, 1, 2), tokens_k=(1500, 3, 2100), heads=(2, 1), head_dim=16),
        dict(tokens_q=(40, 70), heads=(2, 1), head_dim=16, is_causal=False),
        dict(tokens_q=(40, 70), heads=(2, 1), head_dim=16, window_size=(9, -1)),
        dict(tokens_q=(70,), heads=(2, 1), head_dim=32),
        dict(tokens_q=(), heads=(2, 1), head_dim=8),
    ],
    large=dict(tokens_q=(90, 17, 130, 64, 1), heads=(4, 2), head_dim=32),
    bench=[
        dict(tokens_q=lengths, heads=(6, 6), head_dim=64, is_causal=causal)
        for lengths in ((31, 250, 97, 64, 180, 210, 256, 141),)  # 0.6 of the longest on average
        for causal in (True, False)
    ],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS,
    unit=1.0,
    invalid=dict(
        cu_seqlens_q=(np.array([0, 6, 5]), np.array([1, 2, 5]), np.array([0, 2, 6])),
        cu_seqlens_k=(np.array([0, 8, 7]), np.array([-1, 2, 7]), np.array([0, 4, 6])),
    ),
    torch=torch_attention,
)  # fmt: skip

PACKED_BIAS_ATTENTION = Op(
    name="attention",
    variant="packed_bias",
    draw=partial(draw_packed_attention, bias=True),
    shapes=PACKED_ATTENTION.shapes,
    tests=[
        dict(tokens_q=(2, 3), tokens_k=(4, 3), heads=(4, 2), head_dim=6, is_causal=False),
        dict(tokens_q=(1, 16, 7, 33, 0, 5), heads=(2, 2), head_dim=16),
        dict(tokens_q=(40, 70), heads=(2, 1), head_dim=16, softcap=2.0, dropout_p=0.3, seed=5),
    ],
    large=dict(tokens_q=(90, 17, 130, 64, 1), heads=(4, 2), head_dim=32),
    bench=[dict(tokens_q=(31, 250, 97, 64, 180, 210, 256, 141), heads=(6, 6), head_dim=64)],
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS | dict(bias="dbias"),
    unit=1.0,
)  # fmt: skip


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


# --- rotary embedding ---------------------------------------------------------------------------


def draw_rotary(
    rng: Generator,
    tokens: tuple[int, ...],
    heads: int,
    head_dim: int,
    turned: int | None = None,
    interleaved: bool = False,
    positions: bool = False,
) -> dict[str, Any]:
    """`tokens`: (batch, tokens), or (total,); `turned`: how many numbers of a head are."""
    length = tokens[-1] + 3
    cos, sin = ops.rotary_table(length, head_dim if turned is None else turned, theta=100.0)
    return dict(
        x=normal(rng, *tokens, heads, head_dim),
        cos=cos,
        sin=sin,
        interleaved=interleaved,
        positions=integers(rng, length, *tokens) if positions else None,
    )


def torch_rotary(F: Any, t: Any) -> Any:
    torch = _torch()

    def run() -> Any:
        d = t.cos.shape[1]
        rows = torch.arange(t.x.shape[-3]) if t.positions is None else t.positions
        cos, sin = t.cos[rows][..., None, :], t.sin[rows][..., None, :]
        x, rest = t.x[..., : 2 * d], t.x[..., 2 * d :]
        if t.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        else:
            a, b = x[..., :d], x[..., d:]
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
        return torch.cat((turned, rest), -1)

    return run


def rotary(variant: str, shape: str, plain: tuple[int, ...]) -> Op:
    per_head = f"{shape} heads dim"
    dims = dict(tokens=plain, heads=3, head_dim=6, positions=True)
    return Op(
        name="rotary",
        variant=variant,
        draw=draw_rotary,
        shapes=dict(
            x=per_head, out=per_head, dout=per_head, dx=per_head,
            cos="length half", sin="length half", positions=shape,
        ),
        strided=("x", "out", "dout", "dx"),
        tests=[
            dims,
            dict(dims, interleaved=True),
            *over("head_dim", (2, 8, 14, 16, 18, 30, 64, 66, 128, 130, 258),
                  tokens=plain, heads=2),
            *over("head_dim", (2, 8, 14, 16, 18, 30, 64, 66, 128, 130, 258),
                  tokens=plain, heads=2, interleaved=True),
            *over("turned", (0, 2, 16, 18), tokens=plain, heads=2, head_dim=21),
            *over("turned", (0, 2, 16, 18), tokens=plain, heads=2, head_dim=21, interleaved=True),
            dict(tokens=(0,) * len(plain), heads=2, head_dim=8),
        ],
        large=dict(tokens=(*plain[:-1], 300), heads=5, head_dim=64, positions=True),
        bench=[
            dict(tokens=(1024,) if len(plain) == 1 else (2, 512), heads=12, head_dim=64),
            dict(tokens=(1024,) if len(plain) == 1 else (2, 512), heads=12, head_dim=64,
                 interleaved=True),
        ],
        flops=lambda c: 6 * c.x.shape[-3] * c.x.shape[-2] * c.cos.shape[1],
        backward_flops=1.0,
        bytes=lambda c: 2 * c.x.nbytes + c.x.shape[-3] * c.cos.shape[1] * 8,
        grads=dict(x="dx"),
        bounds=dict(positions=lambda c: len(c.cos)),
        relative=(),
        torch=torch_rotary,
    )  # fmt: skip


ROTARY = rotary("", "batch tokens", (2, 5))
ROTARY_PACKED = rotary("packed", "total", (7,))


# --- elementwise --------------------------------------------------------------------------------

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
            getattr(F if name in ("gelu", "silu") else _torch(), name),
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

DROPOUT = Op(
    name="dropout",
    draw=lambda rng, shape, p=0.5, training=True, seed=1234, offset=0: dict(
        x=normal(rng, *shape), p=p, training=training, seed=seed, offset=offset
    ),
    shapes=dict(x="*", out="*", dout="*", dx="*"),
    tests=[
        *over("shape", tuple(ELEMENTWISE_SHAPES)),
        *over("p", (0.0, 0.1, 0.999), shape=(131,)),
        *over("offset", (1, 2**32 - 40, 2**40 + 3), shape=(131,), p=0.3),
        *over("seed", (0, 2**64 - 1), shape=(131,), p=0.3),
        dict(shape=(131,), training=False),
    ],
    large=dict(shape=(300, 1001), p=0.1),
    bench=[dict(shape=(2048, 768), p=0.1)],
    flops=lambda c: 11 * c.x.size,  # integer operations of the generator
    backward_flops=1.0,
    grads=dict(x="dx"),
    invalid=dict(p=(-0.1, 1.0, 1.5, math.nan)),
    relative=("out", "dx"),
)


# --- embedding and losses -----------------------------------------------------------------------

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
    torch=lambda F, t: partial(F.embedding, t.input, _torch().as_tensor(t.weight.dequantize())),
)


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
        return _torch().stack([take(part, 0) if len(part) else part.sum(0) for part in parts])

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


def draw_cross_entropy(
    rng: Generator,
    rows: tuple[int, ...],
    classes: int,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignored: float = 0.0,
) -> dict[str, Any]:
    """A fraction `ignored` of the targets is not counted."""
    target = integers(rng, classes, *rows)
    return dict(
        logits=normal(rng, *rows, classes, scale=2.0),
        target=np.where(rng.random(rows) < ignored, -100, target),
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


REDUCTIONS = ("none", "sum", "mean")

CROSS_ENTROPY = Op(
    name="cross_entropy",
    draw=draw_cross_entropy,
    shapes=dict(logits="* classes", target="*", lse="*", dlogits="* classes"),
    tests=[
        dict(rows=(4,), classes=6),
        *over("classes", TAILS, rows=(5,), reduction="none"),
        *over("reduction", REDUCTIONS, rows=(3, 7), classes=35, ignored=0.4, label_smoothing=0.1),
        *over("reduction", REDUCTIONS, rows=(0,), classes=5),
        dict(rows=(3,), classes=5, ignored=1.0),
        dict(rows=(), classes=9, reduction="sum"),
        dict(rows=(33,), classes=1000, label_smoothing=0.2),
    ],
    large=dict(rows=(700,), classes=301, ignored=0.1, label_smoothing=0.1),
    bench=[dict(rows=(256,), classes=50257), dict(rows=(2048,), classes=1024)],
    flops=lambda c: c.logits.size * (EXP + 3),
    backward_flops=1.0,
    returns=("loss", "lse"),
    keep=dict(return_lse=True),
    grads=dict(logits="dlogits"),
    bounds=dict(target=lambda c: c.logits.shape[-1]),
    invalid=dict(reduction=("avg",), label_smoothing=(-0.1, 1.1, math.nan)),
    torch=lambda F, t: partial(
        F.cross_entropy, t.logits.reshape(-1, t.logits.shape[-1]), t.target.reshape(-1),
        label_smoothing=t.label_smoothing, reduction=t.reduction,
    ),
)  # fmt: skip


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
        dout = _torch().as_tensor(t.dout, dtype=loss.dtype).reshape(loss.shape)
        return loss.detach(), *_torch().autograd.grad(loss, inputs, dout)

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


def pairwise_loss(name: str, target: str, flops: int) -> Op:
    """A loss between two arrays of one shape; `target` is "normal" or "probability"."""

    def draw(rng: Generator, shape: tuple[int, ...], reduction: str = "mean") -> dict[str, Any]:
        wanted = rng.random(shape) if target == "probability" else normal(rng, *shape)
        return dict(
            input=normal(rng, *shape, scale=2.0),
            target=np.asarray(wanted, np.float32),
            reduction=reduction,
        )

    return Op(
        name=name,
        draw=draw,
        shapes=dict(input="*", target="*", dx="*"),
        tests=[
            dict(shape=(4, 3)),
            *over("shape", tuple((n,) for n in TAILS), reduction="none"),
            *over("reduction", REDUCTIONS, shape=(6, 35)),
            *over("reduction", REDUCTIONS, shape=(0,)),
            dict(shape=(), reduction="sum"),
        ],
        large=dict(shape=(300, 1001)),
        bench=[dict(shape=(2048, 768))],
        flops=lambda c: flops * c.input.size,
        backward_flops=1.0,
        returns=("loss",),
        grads=dict(input="dx"),
        invalid=dict(reduction=("avg",)),
        torch=lambda F, t: partial(getattr(F, name), t.input, t.target, reduction=t.reduction),
    )


MSE = pairwise_loss("mse_loss", target="normal", flops=3)
BCE = pairwise_loss("binary_cross_entropy_with_logits", target="probability", flops=2 * EXP)


# --- sampling and positions ---------------------------------------------------------------------

SAMPLE = Op(
    name="sample",
    draw=lambda rng, rows, classes, **options: dict(
        logits=normal(rng, *rows, classes, scale=3.0),
        **{"seed": 1234, "offset": 0, "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, **options},
    ),
    shapes=dict(logits="* classes"),
    tests=[
        dict(rows=(4,), classes=6, top_k=3),
        *over("classes", TAILS, rows=(40,)),
        *over("temperature", (0.0, 0.1, 0.7, 5.0, 100.0), rows=(40,), classes=500),
        *over("top_k", (1, 2, 30, 499, 500, 501), rows=(40,), classes=500, temperature=2.0),
        *over("top_p", (1e-6, 0.1, 0.9, 0.999), rows=(40,), classes=500),
        *over("min_p", (0.01, 0.5, 1.0), rows=(40,), classes=500),
        *over("offset", (1, 2**32 - 3, 2**64 - 1), rows=(9,), classes=33, seed=2**64 - 1),
        dict(rows=(3, 5), classes=300, temperature=3.0, top_k=100, top_p=0.8, min_p=0.01),
        *over("rows", ((), (0,)), classes=9),
    ],
    large=dict(rows=(200,), classes=1001, top_p=0.9),
    bench=[
        dict(rows=(1,), classes=50257, temperature=0.8, top_k=50, top_p=0.95),
        dict(rows=(32,), classes=50257, temperature=0.8, top_p=0.95),
    ],
    flops=lambda c: c.logits.size * EXP,
    invalid=dict(
        temperature=(-1.0, math.nan), top_k=(0, -3), top_p=(0.0, 1.1, math.nan),
        min_p=(-0.1, 1.1), seed=(-1,), offset=(2**64,),
    ),
)  # fmt: skip

RELATIVE_POSITION_BUCKETS = Op(
    name="relative_position_buckets",
    draw=lambda rng, **options: options,
    shapes={},
    tests=[
        dict(tokens_q=5, tokens_k=7, num_buckets=8, max_distance=20, bidirectional=True),
        *over("bidirectional", (True, False), tokens_q=300, tokens_k=280),
        *over("tokens_q", (0, 1, 2, 33), tokens_k=40, bidirectional=False),
        *over("tokens_k", (0, 1, 2, 33), tokens_q=40),
        *over("num_buckets", (4, 6, 64), tokens_q=70, tokens_k=90, max_distance=50),
    ],
    large=dict(tokens_q=400, tokens_k=500),
    bench=[dict(tokens_q=512, tokens_k=512)],
    flops=lambda c: 0.0,
    invalid=dict(
        tokens_q=(-1,), tokens_k=(-1,), num_buckets=(0, 2, 7), max_distance=(0, 2)
    ),
)  # fmt: skip


# --- optimizers: one flat buffer, updated in place ----------------------------------------------

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
    torch = _torch()
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
    return torch_optimizer("SGD", 0, buffers, t, momentum=t.momentum, **options)


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
    torch=lambda F, t: partial(_torch().linalg.vector_norm, t.grad),
)


OPS: tuple[Op, ...] = (
    MATMUL, LINEAR, LINEAR_QUANTIZED,
    SOFTMAX, LOG_SOFTMAX,
    ATTENTION, CHANGED_ATTENTION, MASKED_ATTENTION,
    BIAS_ATTENTION, PACKED_ATTENTION, PACKED_BIAS_ATTENTION,
    ROTARY, ROTARY_PACKED,
    LAYER_NORM, LAYER_NORM_RESIDUAL, RMS_NORM, RMS_NORM_RESIDUAL,
    RELU, SIGMOID, TANH, GELU, SILU, SWIGLU, GEGLU,
    EMBEDDING, EMBEDDING_QUANTIZED, EMBEDDING_SUM, POOL,
    CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, LINEAR_CROSS_ENTROPY_WITH_GRADS, MSE, BCE,
    DROPOUT, SAMPLE, RELATIVE_POSITION_BUCKETS,
    ADAM, SGD, RMSPROP, ADAM_ROWS, SGD_ROWS, GRAD_NORM,
)  # fmt: skip


def tested() -> Iterator[Case]:
    """Every case that tests draw."""
    for op in OPS:
        for dims in (*op.tests, op.large):
            yield Case(op, dims)


def benched(quick: bool = False) -> Iterator[Case]:
    """Every case that benchmarks measure; one for each op when `quick`."""
    for op in OPS:
        for dims in op.bench[:1] if quick else (*op.bench, *op.bench_forward):
            yield Case(op, dims)


def _torch() -> Any:
    import torch

    return torch
