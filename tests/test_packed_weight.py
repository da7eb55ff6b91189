"""Weights laid out once: the same product as with the weight itself."""

from __future__ import annotations

import numpy as np
import pytest

from evergrad import ops
from op_support import BACKENDS, FAST, SEED, using

SHAPES = [
    (1, 576, 97),
    (3, 16, 5),
    (30, 33, 65),
    (130, 1030, 97),
    (40, 520, 700),
    (0, 4, 3),
    (3, 0, 4),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_like_the_weight_itself(rows: int, inputs: int, outputs: int, backend: str) -> None:
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows, inputs), np.float32)
    weight = rng.standard_normal((outputs, inputs), np.float32)
    bias = rng.standard_normal(outputs, np.float32)
    residual = rng.standard_normal((rows, outputs), np.float32)
    with using(backend):
        packed = ops.pack_weight(weight)
        wanted, wanted_pre = ops.linear(
            x, weight, bias, activation="gelu", residual=residual, return_pre=True
        )
        weight[...] = np.nan  # packing copied it
        out, pre = ops.linear(
            x, packed, bias, activation="gelu", residual=residual, return_pre=True
        )
        bare = ops.linear(x, packed)
    # The exact product has terms of size 1, so its rounding errors grow as sqrt(inputs).
    tolerance = 1e-6 * (inputs + 1) ** 0.5
    np.testing.assert_allclose(pre, wanted_pre, rtol=1e-5, atol=tolerance)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=tolerance)
    np.testing.assert_allclose(bare, wanted_pre - bias, rtol=1e-5, atol=tolerance)


def test_same_bits_for_any_number_of_threads() -> None:
    import evergrad

    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((200, 700), np.float32)
    packed = ops.pack_weight(rng.standard_normal((600, 700), np.float32))
    results = []
    for threads in (1, 2, 3):
        with evergrad.num_threads(threads):
            results.append(ops.linear(x, packed).tobytes())
    assert results[0] == results[1] == results[2]


def test_refused_where_it_cannot_be_read() -> None:
    with using(FAST[0]):
        packed = ops.pack_weight(np.ones((3, 2), np.float32))
    x = np.ones((1, 2), np.float32)
    with using("reference"), pytest.raises(ValueError, match="weight: expected one packed for"):
        ops.linear(x, packed)
    with using(FAST[0]), pytest.raises(ValueError, match=r"weight: expected .* to fit x"):
        ops.linear(np.ones((1, 3), np.float32), packed)
    with pytest.raises(ValueError, match="weight: expected 2 dimensions"):
        ops.pack_weight(np.ones(3, np.float32))
