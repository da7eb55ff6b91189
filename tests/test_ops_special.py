"""NaN, infinities, and the edges that a contract has to decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import ops
from evergrad.bench import cases
from evergrad.bench.op import Case, Op, cast
from op_support import BACKENDS, SEED, each_backend, each_op, plain, run, using


def spoil(value: Any, position: int, with_what: float) -> np.ndarray:
    spoiled = value.copy()
    spoiled.flat[position] = with_what
    return spoiled


def spoilable(op: Op) -> list[str]:
    arrays = {name: x for name, x in plain(op).args.items() if isinstance(x, np.ndarray)}
    return [name for name, x in arrays.items() if x.dtype.kind == "f"]


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf], ids=str)
@each_op()
@each_backend
def test_nothing_hides_it(op: Op, what: float, backend: str) -> None:
    """NaN and infinity come out wherever the formula in float64 has them, and nowhere else."""
    clean = plain(op)
    with evergrad.use_backend("reference"):
        dout = clean.cotangent(np.random.default_rng(SEED), clean.forward()) if op.grads else None
    for name in spoilable(op):
        for position in (0, -1):
            problem = clean.with_args(**{name: spoil(clean.args[name], position, what)})
            with evergrad.use_backend("reference"):
                exact = run(problem.cast(np.float64), cast(dout, np.float64))
            with using(backend):
                got = run(problem, dout)
            for result, wanted in exact.items():
                where = f"{result}, {name}[{position}] = {what}"
                np.testing.assert_array_equal(np.isnan(got[result]), np.isnan(wanted), where)
                np.testing.assert_array_equal(np.isposinf(got[result]), np.isposinf(wanted), where)
                np.testing.assert_array_equal(np.isneginf(got[result]), np.isneginf(wanted), where)


@each_op(lambda op: op.grads)
@each_backend
def test_nan_in_the_cotangent(op: Op, backend: str) -> None:
    problem = plain(op)
    with using(backend):
        outputs = problem.forward()
        dout = problem.cotangent(np.random.default_rng(SEED), outputs)
        dout = spoil(dout, -1, np.nan) if isinstance(dout, np.ndarray) else np.nan
        for name, grad in problem.backward(outputs, dout).items():
            assert np.isnan(grad).any(), name


MAGNITUDES = np.array([0.0, 1e-40, 1e-30, 88.0, 104.0, 1e30], np.float32)
VALUES = np.concatenate([MAGNITUDES, -MAGNITUDES])


@each_op(lambda op: op.family == "activation")
@each_backend
def test_extreme_values(op: Op, backend: str) -> None:
    """Saturated, not overflowed; tiny, not lost (denormals may be flushed)."""
    problem = plain(op).with_args(x=VALUES)
    with evergrad.use_backend("reference"):
        exact = run(problem.cast(np.float64), np.ones(VALUES.shape))
    with using(backend):
        got = run(problem, np.ones_like(VALUES))
    for name in exact:
        np.testing.assert_allclose(got[name], exact[name], rtol=1e-5, atol=2e-38, err_msg=name)


@pytest.mark.parametrize("tokens", [(1, 1), (7, 3), (2, 600)], ids=str)
# Numba's compiler may choose the order of a sum anew in each kernel.
@pytest.mark.parametrize("backend", [each for each in BACKENDS if each != "numba"])
def test_attention_of_few_queries_takes_large_scores_back(
    tokens: tuple[int, int], backend: str
) -> None:
    """Their scores are made in another order forth, and so they are back."""
    rng = np.random.default_rng(SEED)
    query, dout = rng.standard_normal((2, 1, tokens[0], 1, 64), np.float32)
    key, value = rng.standard_normal((2, 1, tokens[1], 1, 64), np.float32)
    query *= 1e5
    with using(backend):
        out, lse = ops.attention(query, key, value, return_lse=True)
        dvalue = ops.attention_backward(dout, query, key, value, out, lse)[2]
    # Each query has one key that has it all.
    np.testing.assert_allclose(dvalue.sum(1), dout.sum(1), rtol=1e-5, atol=1e-5)


@each_backend
class TestDecided:
    def test_softmax_of_a_masked_row_is_zero(self, backend: str) -> None:
        x = np.full((2, 19), -np.inf, np.float32)
        x[1, 3] = 0
        with using(backend):
            out = ops.softmax(x)
            assert not out[0].any()
            np.testing.assert_array_equal(out[1], np.eye(19, dtype=np.float32)[3])
            assert not ops.softmax_backward(np.ones_like(x), out).any()

    def test_softmax_does_not_overflow(self, backend: str) -> None:
        x = np.array([[3e38, -3e38, 3e38], [1000, 999, -1000], [-3e38, -3e38, -3e38]], np.float32)
        with using(backend):
            out = ops.softmax(x)
        np.testing.assert_allclose(out.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(out[1, 0] / out[1, 1], np.e, rtol=1e-5)

    def test_attention_rows_without_keys(self, backend: str) -> None:
        """Bottom-right: with fewer keys than queries the first queries see none."""
        rng = np.random.default_rng(SEED)
        query = rng.standard_normal((1, 5, 2, 8), np.float32)
        key, value = rng.standard_normal((2, 1, 3, 2, 8), np.float32)
        with using(backend):
            out, lse = ops.attention(query, key, value, is_causal=True, return_lse=True)
            ones = np.ones_like(out)
            grads = ops.attention_backward(ones, query, key, value, out, lse, is_causal=True)
        assert not out[0, :2].any()
        assert np.isneginf(lse[0, :, :2]).all()
        assert np.isfinite(lse[0, :, 2:]).all()
        assert not grads[0][0, :2].any()
        assert all(np.isfinite(grad).all() for grad in grads)

    def test_attention_first_causal_row_copies_the_value(self, backend: str) -> None:
        rng = np.random.default_rng(SEED)
        query, key, value = rng.standard_normal((3, 1, 70, 2, 16), np.float32)
        with using(backend):
            out = ops.attention(query, key, value, is_causal=True)
        np.testing.assert_array_equal(out[0, 0], value[0, 0])

    def test_attention_does_not_overflow(self, backend: str) -> None:
        rng = np.random.default_rng(SEED)
        query, key, value = rng.standard_normal((3, 1, 40, 1, 16), np.float32)
        with using(backend):
            out, lse = ops.attention(1e4 * query, 1e4 * key, value, return_lse=True)
        assert np.isfinite(out).all()
        assert np.isfinite(lse).all()

    @pytest.mark.parametrize("approximate", ["none", "tanh"])
    def test_gelu_far_out_is_a_line(self, approximate: str, backend: str) -> None:
        """Where squares and cubes of x overflow, too."""
        x = np.array([3e38, 2e13, 1e10, 20, -20, -1e10, -2e13, -3e38], np.float32)
        with using(backend):
            np.testing.assert_array_equal(ops.gelu(x, approximate), np.maximum(x, 0))
            slopes = ops.gelu_backward(np.ones_like(x), x, approximate)
        np.testing.assert_array_equal(slopes, x > 0)

    def test_attention_takes_large_scores_back_as_it_made_them(self, backend: str) -> None:
        """One key has it all: its probability is 1 on the way back too, not exp of a rounding."""
        rng = np.random.default_rng(SEED)
        query, key, value, dout = rng.standard_normal((4, 1, 40, 2, 16), np.float32)
        query *= 1e5

        def dvalue(*args: np.ndarray) -> np.ndarray:
            out, lse = ops.attention(*args[:3], return_lse=True)
            return ops.attention_backward(args[3], *args[:3], out, lse)[2]

        with evergrad.use_backend("reference"):
            exact = dvalue(*(x.astype(np.float64) for x in (query, key, value, dout)))
        with using(backend):
            got = dvalue(query, key, value, dout)
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=2e-6)

    def test_packed_sequences_do_not_see_each_other(self, backend: str) -> None:
        dims = dict(tokens_q=(5, 9, 4), heads=(2, 1), head_dim=8)
        problem = Case(cases.PACKED_ATTENTION, dims).problem(SEED)
        second = slice(5, 14)
        changed = {}
        for name in ("query", "key", "value"):
            changed[name] = np.full_like(problem.args[name], np.nan)
            changed[name][second] = problem.args[name][second]
        with using(backend):
            wanted = problem.forward()["out"]
            got = problem.with_args(**changed).forward()["out"]
            part = {name: x[None, second] for name, x in changed.items()}
            alone = ops.attention(**part, is_causal=True)[0]
        np.testing.assert_array_equal(got[second], wanted[second])
        np.testing.assert_allclose(alone, wanted[second], rtol=1e-4, atol=1e-6)

    def test_layer_norm_of_a_constant_row(self, backend: str) -> None:
        """A large mean does not drown the variance."""
        rng = np.random.default_rng(SEED)
        noise = rng.standard_normal((1, 64), np.float32)
        x = np.concatenate([np.full((1, 64), 7.0, np.float32), 1000 + noise])
        with using(backend):
            out, mean, rstd = ops.layer_norm(x, (64,), return_stats=True)
        np.testing.assert_array_equal(out[0], 0)
        np.testing.assert_allclose(mean, [7, x[1].mean(dtype=np.float64)], rtol=1e-6)
        np.testing.assert_allclose(rstd, [1e-5**-0.5, x[1].std(dtype=np.float64) ** -1], rtol=1e-3)

    def test_cross_entropy_of_certain_logits(self, backend: str) -> None:
        logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], np.float32)
        target = np.array([0, 0])
        with using(backend):
            losses, lse = ops.cross_entropy(logits, target, reduction="none", return_lse=True)
            ones = np.ones(2, np.float32)
            grad = ops.cross_entropy_backward(ones, logits, target, lse, reduction="none")
        np.testing.assert_array_equal(losses, [0, 2e4])
        np.testing.assert_array_equal(grad, [[0, 0, 0], [-1, 1, 0]])

    def test_cross_entropy_counts_what_is_not_ignored(self, backend: str) -> None:
        rng = np.random.default_rng(SEED)
        logits = rng.standard_normal((6, 11), np.float32)
        target = np.array([3, -100, 0, -100, 10, 1])
        kept = target != -100
        with using(backend):
            loss, lse = ops.cross_entropy(logits, target, return_lse=True)
            assert loss == pytest.approx(ops.cross_entropy(logits[kept], target[kept]), rel=1e-6)
            grad = ops.cross_entropy_backward(1.0, logits, target, lse)
            assert not grad[~kept].any()
            assert np.isnan(ops.cross_entropy(logits[~kept], target[~kept]))

    def test_cross_entropy_ignores_any_index(self, backend: str) -> None:
        logits = np.random.default_rng(SEED).standard_normal((4, 5), np.float32)
        with using(backend):
            got = ops.cross_entropy(logits, np.array([0, 2, 2, 4]), ignore_index=2, reduction="sum")
            wanted = ops.cross_entropy(logits[[0, 3]], np.array([0, 4]), reduction="sum")
        assert got == pytest.approx(wanted, rel=1e-6)

    def test_adam_moves_by_the_learning_rate_at_first(self, backend: str) -> None:
        param, grad = np.ones(37, np.float32), np.full(37, -5.0, np.float32)
        with using(backend):
            ops.adam_step(param, grad, np.zeros_like(param), np.zeros_like(param), step=1, lr=0.1)
        np.testing.assert_allclose(param, 1.1, rtol=1e-6)

    @pytest.mark.parametrize("beta", [0.9999, 0.99999999])
    def test_averages_that_fade_slowly(self, beta: float, backend: str) -> None:
        """1 - beta has its digits, though float32 has few left for beta itself."""
        rest = np.float32(1 - beta)
        with using(backend):
            param, grad, m, v = (np.full(37, x, np.float32) for x in (1, -2, 0, 0))
            ops.adam_step(param, grad, m, v, step=1, lr=0.1, beta1=beta, beta2=beta)
            np.testing.assert_allclose(m, -2 * rest, rtol=1e-6)
            np.testing.assert_allclose(v, 4 * rest, rtol=1e-6)
            np.testing.assert_allclose(param, 1.1, rtol=1e-6)
            average = np.zeros(37, np.float32)
            ops.rmsprop_step(param, grad, average, lr=0.1, alpha=beta)
            np.testing.assert_allclose(average, 4 * rest, rtol=1e-6)

    def test_what_a_mask_hides_stays_hidden(self, backend: str) -> None:
        """Whatever the bias holds there, and the other way round."""
        rng = np.random.default_rng(SEED)
        query, key, value = rng.standard_normal((3, 1, 4, 1, 8), np.float32)
        hides = np.zeros((1, 1, 4, 4), np.float32)
        hides[..., 2] = -np.inf
        with using(backend):
            wanted = ops.attention(query, key, value, attn_mask=hides)
            for odd in (np.inf, -np.inf, 7.0):
                other = np.zeros_like(hides)
                other[..., 2] = odd
                got = ops.attention(query, key, value, attn_mask=hides, bias=other)
                np.testing.assert_array_equal(got, wanted)
                got = ops.attention(query, key, value, attn_mask=other, bias=hides)
                np.testing.assert_array_equal(got, wanted)

    def test_ignored_rows_give_zeros_whatever_they_hold(self, backend: str) -> None:
        rng = np.random.default_rng(SEED)
        x, weight = rng.standard_normal((3, 4), np.float32), rng.standard_normal((5, 4), np.float32)
        x[1] = np.nan
        bias, target = np.zeros(5, np.float32), np.array([0, -100, 3])
        with using(backend):
            _, lse = ops.linear_cross_entropy(
                x, weight, target, bias=bias, softcap=3.0, return_lse=True
            )
            dx, _, dbias = ops.linear_cross_entropy_backward(
                1.0, x, weight, target, lse, bias=bias, softcap=3.0
            )
        assert not dx[1].any()
        assert np.isfinite(dx).all()
        assert np.isfinite(dbias).all()

    @pytest.mark.parametrize(("a", "b"), [((2, 3, 0), (0, 4)), ((2, 3, 4), (4, 0))], ids=str)
    def test_products_without_depth_or_columns(self, a: Any, b: Any, backend: str) -> None:
        with using(backend):
            da, db = ops.matmul_backward(
                np.ones((2, 3, b[1]), np.float32), np.ones(a, np.float32), np.ones(b, np.float32)
            )
        assert (da.shape, db.shape) == (a, b)
        assert not da.any()

    def test_grad_norm_neither_overflows_nor_underflows(self, backend: str) -> None:
        with using(backend):
            assert ops.grad_norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)
            assert ops.grad_norm(np.full(4, 1e-30, np.float32)) == pytest.approx(2e-30, rel=1e-6)


@each_backend
class TestDropout:
    def test_mask_is_the_specified_one(self, backend: str) -> None:
        seed, offset, p = 0x9ABCDEF012345678, 2**32 - 50, 0.3
        kept = [keep(seed, offset + i, p) for i in range(100)]
        with using(backend):
            out = ops.dropout(np.ones(100, np.float32), p, seed=seed, offset=offset)
        np.testing.assert_array_equal(out != 0, kept)
        np.testing.assert_allclose(out[out != 0], 1 / 0.7, rtol=1e-6)

    def test_pieces_make_the_whole(self, backend: str) -> None:
        x = np.random.default_rng(SEED).standard_normal(5000, np.float32)
        with using(backend):
            whole = ops.dropout(x, 0.4, seed=3, offset=7)
            head = ops.dropout(x[:1234], 0.4, seed=3, offset=7)
            tail = ops.dropout(x[1234:], 0.4, seed=3, offset=7 + 1234)
        np.testing.assert_array_equal(np.concatenate([head, tail]), whole)

    def test_it_looks_random(self, backend: str) -> None:
        """Rates, and neighbours in position, seed and offset are independent: within 5 sigma."""
        n, p = 200_000, 0.25
        ones = np.ones(n, np.float32)
        with using(backend):
            first = ops.dropout(ones, p, seed=1) != 0
            others = [
                ops.dropout(ones, p, seed=2) != 0,
                ops.dropout(ones, p, seed=1, offset=n) != 0,
                np.roll(first, 1),
            ]
        sigma = np.sqrt(p * (1 - p) / n)
        assert abs(first.mean() - (1 - p)) < 5 * sigma
        for other in others:
            both = (first & other).mean()
            assert abs(both - (1 - p) ** 2) < 5 * np.sqrt((1 - p) ** 2 * (1 - (1 - p) ** 2) / n)


def keep(seed: int, counter: int, p: float) -> bool:
    """The generator of the specification in plain integers."""
    u64 = 2**64 - 1

    def mix64(z: int) -> int:
        z = (z + 0x9E3779B97F4A7C15) & u64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & u64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & u64
        return z ^ (z >> 31)

    def mix32(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    key = mix64(seed ^ mix64(counter >> 32))
    h = mix32((counter & 0xFFFFFFFF) ^ (key & 0xFFFFFFFF))
    h = mix32((h + (key >> 32)) & 0xFFFFFFFF)
    return h >= int(p * 2**32)
