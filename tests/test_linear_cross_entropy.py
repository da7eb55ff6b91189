"""What the generated tests do not say of linear + cross-entropy: memory, chunks, the one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops
from evergrad.bench import cases
from evergrad.bench.op import Case
from op_support import BACKENDS, FAST, SEED, assert_within_budget, each_backend, using

#: More than one chunk of rows in one pass (64 MB of logits), with classes that end inside a block.
TALL = dict(rows=(260,), inputs=3, classes=70001, bias=True, ignored=0.2, label_smoothing=0.1)


def separately(args: dict[str, Any], dout: Any) -> dict[str, Any]:
    names = ("bias", "label_smoothing", "softcap", "reduction")
    options = {name: args[name] for name in names}
    x, weight, target = args["x"], args["weight"], args["target"]
    loss, lse = ops.linear_cross_entropy(x, weight, target, **options, return_lse=True)
    grads = ops.linear_cross_entropy_backward(dout, x, weight, target, lse, **options)
    return dict(zip(("loss", "dx", "dweight", "dbias"), (loss, *grads), strict=True))


@pytest.mark.parametrize("backend", FAST)
def test_chunks_of_rows(backend: str) -> None:
    op = cases.LINEAR_CROSS_ENTROPY_WITH_GRADS
    problem = Case(op, TALL).problem(SEED)
    with evergrad.use_backend("reference"):
        exact, naive = problem.cast(np.float64).forward(), problem.forward()
    with using(backend):
        got = problem.forward()
        apart = separately(problem.args, problem.args["dout"])
        with evergrad.num_threads(3):
            again = problem.forward()
    assert_within_budget(op, got, exact, naive)
    assert_within_budget(op, apart, exact, naive)
    for name, value in got.items():
        np.testing.assert_array_equal(again[name], value, name)


@each_backend
def test_buffers_of_the_one_pass(backend: str) -> None:
    """dx is overwritten, dweight and dbias are added to, and what is not needed is None."""
    problem = Case(cases.LINEAR_CROSS_ENTROPY_WITH_GRADS, cases.LINEAR_CROSS_ENTROPY.tests[0])
    args = problem.problem(SEED).args
    with using(backend):
        loss, dx, dweight, dbias = ops.linear_cross_entropy_with_grads(**args)
        buffers = {
            "dx": np.full_like(dx, np.nan),
            "dweight": np.ones_like(dweight),
            "dbias": np.ones_like(dbias),
        }
        got = ops.linear_cross_entropy_with_grads(**args, **buffers)
        for result, buffer in zip(got[1:], buffers.values(), strict=True):
            assert result is buffer
        assert got[0] == loss
        np.testing.assert_array_equal(buffers["dx"], dx)
        np.testing.assert_allclose(buffers["dweight"] - 1, dweight, atol=1e-6)
        np.testing.assert_allclose(buffers["dbias"] - 1, dbias, atol=1e-6)
        for i, name in enumerate(buffers, 1):
            some = ops.linear_cross_entropy_with_grads(**args, **{f"need_{name}": False})
            assert some[i] is None
            np.testing.assert_array_equal(some[i % 3 + 1], (dx, dweight, dbias)[i % 3])


@pytest.mark.skipif("native" not in evergrad.available_backends(), reason="needs the pool")
def test_the_logits_never_exist_as_a_whole() -> None:
    from evergrad import _native

    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((2048, 8), np.float32)
    weight = rng.standard_normal((50000, 8), np.float32)
    target = rng.integers(0, 50000, 2048)

    def scratch(call: Any) -> int:
        """Bytes that the pool holds after a call from empty: all that ever lived in it at once."""
        _native.pool_trim()
        call()
        return int(_native.pool_stats()["cached_bytes"])

    with evergrad.use_backend("native"):
        dx, dweight = np.empty_like(x), np.zeros_like(weight)
        options = {"dx": dx, "dweight": dweight}
        lse = ops.linear_cross_entropy(x, weight, target, return_lse=True)[1]
        whole = 4 * 2048 * 50000
        assert scratch(lambda: ops.linear_cross_entropy(x, weight, target)) < whole / 10
        assert (
            scratch(
                lambda: ops.linear_cross_entropy_backward(1.0, x, weight, target, lse, **options)
            )
            < whole / 10
        )
        one_pass = scratch(
            lambda: ops.linear_cross_entropy_with_grads(1.0, x, weight, target, **options)
        )
    assert 50_000_000 < one_pass < 90_000_000


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_head(bias: bool, backend: str) -> None:
    """The layer's three ways to a loss agree with its logits."""
    rng = np.random.default_rng(SEED)
    head = nn.Head(6, 11, bias, rng=rng)
    x, target = rng.standard_normal((2, 5, 6), np.float32), rng.integers(0, 11, (2, 5))
    target[0, 1] = -100
    with using(backend):
        logits, through = head(x)
        wanted, lse = ops.cross_entropy(logits, target, reduction="sum", return_lse=True)
        dx = through(ops.cross_entropy_backward(0.5, logits, target, lse, reduction="sum"))
        wanted_grads = [p.grad.copy() for p in head.parameters()]
        for p in head.parameters():
            p.grad.fill(0)
        loss, backward = head.loss(x, target)
        assert loss == pytest.approx(wanted, rel=1e-6)
        np.testing.assert_allclose(backward(0.5), dx, atol=1e-6)
        with pytest.raises(RuntimeError, match="backward ran already"):
            backward(0.5)
        for p, grad in zip(head.parameters(), wanted_grads, strict=True):
            np.testing.assert_allclose(p.grad, grad, atol=1e-6)
        loss, dx_at_once = head.loss_and_dx(x, target, 0.5)
        assert loss == pytest.approx(wanted, rel=1e-6)
        np.testing.assert_allclose(dx_at_once, dx, atol=1e-6)
        for p, grad in zip(head.parameters(), wanted_grads, strict=True):
            np.testing.assert_allclose(p.grad, 2 * grad, atol=2e-6)  # added to


def test_a_frozen_head_costs_no_gradient() -> None:
    head = nn.Head(6, 11)
    head.freeze()
    x, target = np.ones((3, 6), np.float32), np.array([1, 2, 3])
    _, dx = head.loss_and_dx(x, target)
    assert dx is not None
    assert head.weight.grad is None
    _, none = head.loss_and_dx(x, target, need_dx=False)
    assert none is None
