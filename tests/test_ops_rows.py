"""Optimizer steps of single rows against the dense steps."""

from __future__ import annotations

import numpy as np
import pytest

from evergrad import ops
from op_support import SEED, each_backend, using

ROWS = np.array([1, 4, 5])


def table(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return list(rng.standard_normal((count, 7, 19), np.float32))


@each_backend
def test_sgd_is_the_dense_step(backend: str) -> None:
    """Bit for bit, when the other rows have no gradient."""
    param, grad = table(np.random.default_rng(SEED), 2)
    grad[np.setdiff1d(np.arange(7), ROWS)] = 0
    dense = param.copy()
    with using(backend):
        ops.sgd_step(dense.reshape(-1), grad.reshape(-1), lr=0.1, grad_scale=0.3)
        ops.sgd_step_rows(param, grad, ROWS, lr=0.1, grad_scale=0.3)
    assert param.tobytes() == dense.tobytes()


@pytest.mark.parametrize("decoupled", [True, False])
@each_backend
def test_adam_is_the_dense_step_when_nothing_was_skipped(decoupled: bool, backend: str) -> None:
    lazy = table(np.random.default_rng(SEED), 4)
    lazy[3] **= 2
    dense, before = ([x.copy() for x in lazy] for _ in range(2))
    options = dict(step=3, lr=0.1, weight_decay=0.2, decoupled=decoupled, grad_scale=0.3)
    with using(backend):
        ops.adam_step(*(x.reshape(-1) for x in dense), **options)
        ops.adam_step_rows(*lazy, ROWS, np.zeros(3, np.int64), **options)
    others = np.setdiff1d(np.arange(7), ROWS)
    for got, wanted, untouched in zip(lazy, dense, before, strict=True):
        if backend == "numba":  # fused at the compiler's choice
            np.testing.assert_allclose(got[ROWS], wanted[ROWS], rtol=1e-6, atol=1e-6)
        else:
            assert got[ROWS].tobytes() == wanted[ROWS].tobytes()
        assert got[others].tobytes() == untouched[others].tobytes()


@each_backend
def test_adam_catches_up_on_averages_and_decay(backend: str) -> None:
    """As after three dense steps without a gradient at an lr that moves nothing but the decay."""
    param, grad, m, v = table(np.random.default_rng(SEED), 4)
    v **= 2
    dense_m, dense_v = m.copy(), v.copy()
    nothing = np.zeros_like(grad)
    options = dict(beta1=0.8, beta2=0.9, weight_decay=0.0)
    with using(backend):
        ops.adam_step_rows(param, grad, m, v, ROWS, np.full(3, 3), step=9, lr=0.1, **options)
        scratch = param.copy()
        for step in (6, 7, 8, 9):
            given = grad if step == 9 else nothing
            flat = (x.reshape(-1) for x in (scratch, given, dense_m, dense_v))
            ops.adam_step(*flat, step=step, lr=0.1, **options)
    np.testing.assert_allclose(m[ROWS], dense_m[ROWS], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(v[ROWS], dense_v[ROWS], rtol=1e-5, atol=1e-6)


def test_rows_have_to_rise() -> None:
    param, grad = table(np.random.default_rng(SEED), 2)
    for rows in ([1, 1], [2, 1]):
        with pytest.raises(ValueError, match="rows: expected indices that rise"):
            ops.sgd_step_rows(param, grad, np.array(rows), lr=0.1)
