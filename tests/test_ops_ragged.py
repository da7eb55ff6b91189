"""Attention over sequences of very unequal length: each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest

import evergrad
from evergrad import ops
from op_support import BACKENDS, SEED, using

NATIVE = [each for each in BACKENDS if each.startswith("native:")]


def drawn(tokens_q: list[int], tokens_k: list[int], heads: int, kv_heads: int, dim: int) -> tuple:
    rng = np.random.default_rng(SEED)
    query = rng.standard_normal((sum(tokens_q), heads, dim), dtype=np.float32)
    key = rng.standard_normal((sum(tokens_k), kv_heads, dim), dtype=np.float32)
    value = rng.standard_normal((sum(tokens_k), kv_heads, dim), dtype=np.float32)
    bounds = {
        "cu_seqlens_q": np.cumsum([0, *tokens_q]),
        "cu_seqlens_k": np.cumsum([0, *tokens_k]),
    }
    return query, key, value, bounds


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("backend", NATIVE)
def test_sequences_do_not_see_one_another(backend: str, threads: int) -> None:
    """Keys in parts that are merged, keys in one, rows in pieces, no rows, no keys."""
    tokens_q, tokens_k = [3, 1, 0, 150, 5, 1, 16, 2], [2500, 1, 3000, 170, 5, 1025, 4100, 0]
    query, key, value, bounds = drawn(tokens_q, tokens_k, heads=4, kv_heads=2, dim=24)
    with using(backend), evergrad.num_threads(threads):
        out, lse = ops.attention(query, key, value, **bounds, return_lse=True)
        for q0, q1, k0, k1 in zip(
            bounds["cu_seqlens_q"], bounds["cu_seqlens_q"][1:],
            bounds["cu_seqlens_k"], bounds["cu_seqlens_k"][1:],
            strict=False,
        ):  # fmt: skip
            alone = ops.attention(
                query[q0:q1],
                key[k0:k1],
                value[k0:k1],
                cu_seqlens_q=np.array([0, q1 - q0]),
                cu_seqlens_k=np.array([0, k1 - k0]),
                return_lse=True,
            )
            np.testing.assert_array_equal(out[q0:q1], alone[0])
            np.testing.assert_array_equal(lse[:, q0:q1], alone[1])


@pytest.mark.skipif(not NATIVE, reason="needs the pool")
def test_one_long_sequence_does_not_make_the_others_long() -> None:
    """1,024 sequences of a key each beside one of 100,000: no scratch of 200 MB."""
    from evergrad import _native

    query, key, value, bounds = drawn([1] * 1025, [1] * 1024 + [100_000], 1, 1, 16)
    with using("native"):
        _native.pool_trim()
        before = _native.pool_stats()["cached_bytes"]
        out = ops.attention(query, key, value, **bounds)
        scratch = _native.pool_stats()["cached_bytes"] - before
    np.testing.assert_allclose(out[:1024], value[:1024], rtol=1e-6)
    assert scratch < 2**21
