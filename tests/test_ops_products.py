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
