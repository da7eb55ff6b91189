"""Paths of the matrix product that the small cases of the table do not take."""

from __future__ import annotations

import numpy as np
import pytest

import evergrad
from evergrad import ops
from op_support import BACKENDS, SEED, using

NATIVE = [each for each in BACKENDS if each.startswith("native:")]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng([SEED, *shape]).standard_normal(shape, dtype=np.float32)


def assert_close(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.sqrt(a.shape[1]))


@pytest.mark.parametrize("backend", NATIVE)
def test_more_rows_than_are_packed_at_once(backend: str) -> None:
    """Rows are shared by two workers, and their number is not that of whole tiles."""
    a, b = drawn(2050, 64), drawn(64, 11720)
    wanted = a @ b
    with using(backend), evergrad.num_threads(2):
        for _ in range(3):
            np.testing.assert_allclose(ops.matmul(a, b), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [1, 9, 13, 100, 128])
@pytest.mark.parametrize(
    ("k", "n"),
    [
        pytest.param(40, 208, id="columns that fill no panel"),
        pytest.param(1100, 600, id="blocks of depth"),
        pytest.param(520, 1500, id="more columns than stay in cache"),
    ],
)
@pytest.mark.parametrize("backend", NATIVE)
def test_where_rows_lie_changes_no_bit(m: int, k: int, n: int, backend: str) -> None:
    """Rows at multiples of a cache line are read as they lie, others are packed."""
    a, wide = drawn(m, k), drawn(k, -(-n // 16) * 16 + 16)
    lying, packed = wide[:, :n], np.empty((k, n + 1), np.float32)[:, :n]
    packed[...] = lying
    with using(backend), evergrad.num_threads(1):
        out = ops.matmul(a, lying)
        assert_close(out, a, lying)
        np.testing.assert_array_equal(ops.matmul(a, packed), out)
        with evergrad.num_threads(2):
            np.testing.assert_array_equal(ops.matmul(a, lying), out)
        stacked = ops.matmul(np.stack([a] * 5), lying)  # side by side, each on one thread
        np.testing.assert_array_equal(stacked, np.stack([out] * 5))
        transposed = ops.matmul(np.ascontiguousarray(a.T).T, lying)
        np.testing.assert_array_equal(transposed, out)


@pytest.mark.parametrize("m", [25, 33, 48, 64, 96])
@pytest.mark.parametrize(("k", "n"), [(40, 205), (385, 128), (1100, 600)])
@pytest.mark.parametrize("backend", NATIVE)
def test_where_a_weight_lies_changes_no_bit(m: int, k: int, n: int, backend: str) -> None:
    """A weight is read as it lies, and C is turned, unless its rows share sets of the cache."""
    a, weight = drawn(m, k), drawn(n, k)
    apart = np.empty((n, 2048), np.float32)[:, :k]  # packed, for that reason
    apart[...] = weight
    with using(backend), evergrad.num_threads(1):
        out = ops.matmul(a, weight.T)
        assert_close(out, a, weight.T)
        np.testing.assert_array_equal(ops.matmul(a, apart.T), out)
        for threads in (2, 3):
            with evergrad.num_threads(threads):
                np.testing.assert_array_equal(ops.matmul(a, weight.T), out)
        transposed = ops.matmul(np.ascontiguousarray(a.T).T, weight.T)
        np.testing.assert_array_equal(transposed, out)


@pytest.mark.parametrize("is_weight", [False, True])
@pytest.mark.parametrize(("k", "n"), [(301, 2003), (2003, 301)])
@pytest.mark.parametrize("backend", NATIVE)
def test_whether_an_operand_is_cached_changes_no_bit(
    k: int, n: int, is_weight: bool, backend: str
) -> None:
    """One row's is fetched one way from the caches and another from memory."""
    row, matrix, other = drawn(1, k), drawn(n, k).T if is_weight else drawn(k, n), drawn(2**25)
    with using(backend):
        hot = [ops.matmul(row, matrix) for _ in range(2)]
        other += 1  # 128 MB pass through the caches
        cold = ops.matmul(row, matrix)
    assert_close(cold, row, matrix)
    for each in hot:
        np.testing.assert_array_equal(each, cold)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("backend", NATIVE)
def test_a_turned_product_is_finished_like_a_packed_one(
    activation: str | None, backend: str
) -> None:
    """96 rows turn C, 97 pack the weight; depth is cut in three."""
    x, weight, bias, residual = drawn(97, 1100), drawn(200, 1100), drawn(200), drawn(97, 200)
    options = {"activation": activation, "return_pre": True}
    with using(backend), evergrad.num_threads(2):
        packed = ops.linear(x, weight, bias, residual=residual, **options)
        turned = ops.linear(x[:96], weight, bias, residual=residual[:96], **options)
    for one, other in zip(turned, packed, strict=True):
        np.testing.assert_array_equal(one, other[:96])
