"""Attention: plain, with all that changes its scores, and of packed sequences."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from evergrad import ops
from evergrad.bench.cases.draw import EXP, TAILS, Generator, normal, over, positive, pytorch
from evergrad.bench.op import Op


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


def hidden(t: Any, tokens_q: int, tokens_k: int) -> Any:
    """What is added to scores so that hidden keys have no weight, ALiBi and a float mask included;
    None where nothing is."""
    torch = pytorch()
    seen = torch.as_tensor(visible_to(t, tokens_q, tokens_k))
    added = torch.zeros(seen.shape, dtype=t.query.dtype).masked_fill(~seen, -torch.inf)
    if hasattr(t, "alibi_slopes"):
        place = torch.arange(tokens_q)[:, None] + tokens_k - tokens_q
        distance = (place - torch.arange(tokens_k)).abs()
        # Four dimensions: the kernel refuses three.
        added = added - t.alibi_slopes[None, :, None, None] * distance
    mask = getattr(t, "attn_mask", None)
    if mask is not None:
        added = added.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else added + mask
    return added if added.count_nonzero() else None


def torch_attention(F: Any, t: Any) -> Any:
    """PyTorch's own kernel, one sequence of several after the other: padded to the longest they
    take it twice as long. What does not hang on query, key and value is made before."""
    torch = pytorch()
    changed = hasattr(t, "alibi_slopes") or getattr(t, "attn_mask", None) is not None

    def prepared(tokens_q: int, tokens_k: int) -> dict[str, Any]:
        # PyTorch aligns is_causal top-left.
        plain = t.is_causal and tokens_q == tokens_k and not hasattr(t, "window_size")
        if plain and not changed:
            return dict(is_causal=True)
        return dict(attn_mask=hidden(t, tokens_q, tokens_k))

    def attend(query: Any, key: Any, value: Any, options: dict[str, Any]) -> Any:
        heads = (x.transpose(1, 2) for x in (query, key, value))
        enable_gqa = query.shape[2] != key.shape[2]
        out = F.scaled_dot_product_attention(
            *heads, scale=t.scale, enable_gqa=enable_gqa, **options
        )
        return out.transpose(1, 2)

    lengths = sequences_of(t)
    if not hasattr(t, "cu_seqlens_q"):
        options = prepared(t.query.shape[1], t.key.shape[1])
        return lambda: attend(t.query, t.key, t.value, options)
    each = [prepared(*pair) for pair in lengths]
    tokens_q, tokens_k = [q for q, _ in lengths], [k for _, k in lengths]

    def run() -> Any:
        query, key, value = t.query.split(tokens_q), t.key.split(tokens_k), t.value.split(tokens_k)
        parts = (
            attend(q[None], k[None], v[None], options)[0]
            for q, k, v, options in zip(query, key, value, each, strict=True)
        )
        return torch.cat([t.query[:0], *parts])

    return run


def torch_changed_attention(F: Any, t: Any) -> Any:
    """PyTorch's own kernel where it can; it has no softcap, is slower with a bias that has a
    gradient than the formula in the open, and draws other numbers for dropout."""
    softcap, dropout_p = getattr(t, "softcap", 0.0), getattr(t, "dropout_p", 0.0)
    if not softcap and not dropout_p and t.bias is None:
        return torch_attention(F, t)
    torch = pytorch()
    heads, tokens_q, tokens_k = t.query.shape[2], t.query.shape[1], t.key.shape[1]
    mask = hidden(t, tokens_q, tokens_k)
    empty = None if mask is None else (mask == -torch.inf).all(-1, keepdim=True)
    if empty is not None and not empty.any():
        empty = None
    kept = None
    if dropout_p:
        ones = np.ones((t.query.shape[0], heads, tokens_q, tokens_k), np.float32)
        drawn = ops.dropout(ones, dropout_p, seed=t.seed, offset=t.offset)
        kept = torch.as_tensor(drawn != 0).to(t.query.dtype) / (1 - dropout_p)
    scale = t.query.shape[-1] ** -0.5 if t.scale is None else t.scale

    def run() -> Any:
        query, key, value = (x.transpose(1, 2) for x in (t.query, t.key, t.value))
        if key.shape[1] != heads:
            key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
        scores = (scale / (softcap or 1.0)) * query @ key.transpose(-1, -2)
        if softcap:
            scores = softcap * torch.tanh(scores)
        if t.bias is not None:
            scores = scores + t.bias
        if mask is not None:
            scores = scores + mask
        if empty is not None:
            scores = scores.masked_fill(empty, 0.0)
        probabilities = torch.softmax(scores, -1)
        if empty is not None:
            probabilities = probabilities.masked_fill(empty, 0.0)
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

#: What all variants share.
attention = partial(
    Op,
    name="attention",
    flops=attention_flops,
    backward_flops=2.5,
    returns=("out", "lse"),
    keep=dict(return_lse=True),
    grads=ATTENTION_GRADS,
    unit=1.0,
)

ATTENTION = attention(
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
    torch=torch_attention,
)  # fmt: skip

CHANGED_ATTENTION = attention(
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
    invalid=dict(
        window_size=((-2, 0), (0, -2), (1,), (1, 2, 3)),
        softcap=(-1.0, np.inf, np.nan, 1e31, 1e-31),
        dropout_p=(-0.1, 1.0), seed=(-1, 2**64), offset=(-1, 2**64),
    ),
    torch=torch_changed_attention,
)  # fmt: skip

MASKED_ATTENTION = attention(
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
)  # fmt: skip

BIAS_ATTENTION = attention(
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
    grads=ATTENTION_GRADS | dict(bias="dbias"),
    torch=torch_changed_attention,
)  # fmt: skip

PACKED_ATTENTION = attention(
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
    invalid=dict(
        cu_seqlens_q=(np.array([0, 6, 5]), np.array([1, 2, 5]), np.array([0, 2, 6])),
        cu_seqlens_k=(np.array([0, 8, 7]), np.array([-1, 2, 7]), np.array([0, 4, 6])),
    ),
    torch=torch_attention,
)  # fmt: skip

PACKED_BIAS_ATTENTION = attention(
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
    grads=ATTENTION_GRADS | dict(bias="dbias"),
)  # fmt: skip
