"""The native looks at a glance that save an op its checks: they may say yes only where all is well.

What they say no to, the checks look at one by one (tests/test_ops_errors.py, test_ops_buffers.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from evergrad import ops
from op_support import succeeds

native = pytest.importorskip("evergrad._native")


class _Subclass(np.ndarray):
    pass


def _read_only(x):
    x.flags.writeable = False
    return x


X = np.zeros((4, 6), np.float32)


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (True, (0,)),
        (True, (0, X, X.shape)),
        (True, (0, X, None)),
        (True, (0, X, None, X, None)),  # inputs may be the same
        (True, (0, None, X.shape)),
        (True, (1, None, None)),
        (True, (0, _read_only(X.copy()), None)),
        (True, (1, X[:2], None, X[2:], (2, 6))),  # neighbours
        (True, (0, X[0, 0:1].reshape(()), ())),
        (False, (0, X, (6, 4))),
        (False, (0, X, (4,))),
        (False, (0, X, [4, 6])),
        (False, (0, X, (4.0, 6.0))),
        (False, (0, X, (2**70, 6))),
        (False, (0, X.astype(np.float64), None)),
        (False, (0, X.astype(">f4"), None)),
        (False, (0, X.T, None)),
        (False, (0, X[:, :3], None)),
        (False, (0, X.view(_Subclass), None)),
        (False, (0, X.tolist(), None)),
        (False, (0, np.zeros(25, np.uint8)[1:].view(np.float32), None)),  # at an odd address
        (False, (1, _read_only(X.copy()), None)),
        (False, (1, X, None, X, None)),  # an output over an input
        (False, (1, X[:3], None, X[2:], None)),
        (False, (2, X[:3], None, X[2:], None)),  # two outputs over each other
        (False, (1, X[2:], None, X[:3], None)),
        (True, (0, X, 2, X[0], 1)),
        (False, (0, X, 3)),
        (False, (0, None, 2)),
        (False, (0, X, -1)),
    ],
)
def test_plain_is_what_needs_no_further_check(expected, arguments):
    assert native.plain(*arguments) is expected


@pytest.mark.parametrize(
    "arguments",
    [(), (0, X), (0.0, X, None), (-1, X, None), (2, X, None), (2**70,), (0, *[X, None] * 17)],
)
def test_plain_refuses_what_is_no_question(arguments):
    with pytest.raises(TypeError):
        native.plain(*arguments)


QKV = np.zeros((5, 6, 4), np.float32)  # tokens, heads of queries, keys and values, head_dim
TEXTS = np.zeros((3, 5, 3, 2, 4), np.float32)
Q, K, V = QKV[:, :2], QKV[:, 2:4], QKV[:, 4:]


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (True, (0,)),
        (True, (0, Q, 3, K, Q.shape, X, None)),
        (True, (1, Q, None, K, None)),  # heads between heads
        (True, (1, K, None, Q, None)),
        (True, (3, X, 2, V, V.shape, Q, None, K, None)),
        (True, (1, Q, None, None, Q.shape)),
        (True, (1, Q[:3], None, K[2:], None)),
        (True, (1, K[2:], None, Q[:3], None)),
        (True, (1, QKV[0], None, QKV[1:], None)),
        (True, (0, np.broadcast_to(X[:1], (4, 6)), None)),
        (True, (0, _read_only(X.copy()), None)),
        (True, (1, QKV[..., :1], None, QKV[..., 1:2], None)),
        (True, (1, TEXTS[:, :, 0], None, TEXTS[:, :, 1], None)),  # of each token of each text
        (True, (2, TEXTS[:, :, 1], None, TEXTS[:, :, 0], None, TEXTS[:, :, 2], None)),
        (True, (1, TEXTS[1:, :, 0], None, TEXTS[:2, :, 2], None)),
        (False, (1, TEXTS[:, :, :2], None, TEXTS[:, :, 1], None)),
        (False, (1, TEXTS[:, 1:, 1], None, TEXTS[:, :, 1:], None)),
        (False, (1, QKV[:3, :, :2], None, QKV[1:, ::2, 2:], None)),  # apart, but more than a glance
        (False, (1, QKV[:, :3], None, K, None)),
        (False, (1, Q, None, QKV[:, 1:3], None)),
        (False, (1, QKV[:4, 1:5], None, V[1:], None)),
        (False, (1, V[:, 1:], None, QKV[1:, :1].reshape(4, 1, 4)[:, ::-1], None)),
        (False, (1, QKV[::2, :3], None, QKV[1:, 3:], None)),  # another period
        (False, (1, QKV[0], None, QKV, None)),
        (False, (0, Q, 2)),
        (False, (0, None, 3)),
        (False, (0, Q, K.shape[:2])),
        (False, (0, QKV[..., ::2], None)),
        (False, (0, QKV[:, ::-1], None)),
        (False, (0, QKV[:0], None)),
        (False, (0, X[0, 0:1].reshape(()), None)),
        (False, (0, Q.astype(np.float64), None)),
        (False, (0, Q.view(_Subclass), None)),
        (False, (1, np.broadcast_to(X[:1].copy(), (4, 6)), None)),
        (False, (1, _read_only(Q.copy()), None)),
        (False, (1, Q.transpose(1, 0, 2), None)),  # likewise
        (False, (1, np.lib.stride_tricks.as_strided(X, (3, 6), (20, 4)), None)),
    ],
)
def test_rowwise_needs_a_contiguous_last_axis_alone(expected, arguments):
    assert native.rowwise(*arguments) is expected


def test_apart_is_never_said_of_what_shares_an_element():
    rng = np.random.default_rng(0)
    memory = np.zeros((6, 6, 6), np.int16)
    yes = 0
    for _ in range(4000):
        first, second = (
            memory[tuple(slice(*sorted(rng.integers(0, 7, 2)), rng.integers(1, 4)) for _ in "abc")]
            for _ in "xy"
        )
        if rng.random() < 0.2:
            second = second[::-1]
        shared = np.shares_memory(first, second)
        for outcome in (native.apart(first, second), native.apart(second, None, first)):
            assert not (outcome and shared), (first.shape, second.shape)
            yes += outcome
    assert yes > 1000
    assert native.apart(memory[:, :2], memory[:, 2:4])
    assert not native.apart(memory[:, :2], memory[:, 4:].tolist())
    with pytest.raises(TypeError):
        native.apart()


B = np.zeros((6, 5), np.float32)
OUT = np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
    ("expected", "a", "b", "out"),
    [
        (True, X, B, None),
        (True, X, B, OUT),
        (True, X.T.copy().T, B, OUT),
        (True, X, B.T.copy().T, OUT),
        (True, np.zeros((4, 9), np.float32)[:, 3:], B, OUT),
        (True, np.broadcast_to(X[:1], (4, 6)), B, OUT),  # rows that are one row
        (True, _read_only(X.copy()), B, OUT),
        (True, X, X.T, None),
        (True, np.zeros((8, 6), np.float32)[:4], B, OUT),
        (False, X, B[:5], OUT),
        (False, X, B.T, None),
        (False, X, B, OUT.T),
        (False, X, B, OUT[:3]),
        (False, X, B, OUT.T.copy().T),
        (False, X, B, _read_only(OUT.copy())),
        (False, X[:, ::2], B[:3], OUT),
        (False, X[::-1], B, OUT),
        (False, X[:0], B, OUT[:0]),
        (False, X[:, :0], B[:0], OUT),
        (False, X[0], B, None),
        (False, X[None], B, None),
        (False, X.astype(np.float64), B, None),
        (False, X.astype(">f4"), B, None),
        (False, X.view(_Subclass), B, None),
        (False, X.tolist(), B, None),
        (False, np.zeros(97, np.uint8)[1:].view(np.float32).reshape(4, 6), B, None),
        (False, X, np.zeros((6, 6), np.float32), X),  # over an input
        (False, B[:4, :4], B[:4, 1:], B[2:].reshape(4, 5)[:, :4].copy(order="F")),
    ],
)
def test_multiplies_is_a_product_that_needs_no_further_check(expected, a, b, out):
    assert native.multiplies(a, b, out) is expected


def test_multiplies_looks_at_all_that_a_view_spans():
    memory = np.zeros(100, np.float32)
    a, b = memory[:60].reshape(6, 10)[:, :2], np.zeros((2, 3), np.float32)
    between = memory[20:38].reshape(6, 3)  # apart, element by element, but among a's rows
    assert not native.multiplies(a, b, between)
    assert native.multiplies(a, b, memory[60:78].reshape(6, 3))
    assert not native.multiplies(
        a.T.copy().T, memory[70:76].reshape(2, 3), memory[60:78].reshape(6, 3)
    )
    with pytest.raises(TypeError):
        native.multiplies(a, b)


WEIGHT, BIAS = np.zeros((5, 6), np.float32), np.zeros(5, np.float32)
DEEP, DEEP_OUT = np.zeros((2, 4, 6), np.float32), np.zeros((2, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("expected", "x", "weight", "bias", "residual", "out"),
    [
        (True, X, WEIGHT, None, None, None),
        (True, X, WEIGHT, BIAS, OUT, OUT.copy()),
        (True, DEEP, WEIGHT, BIAS, DEEP_OUT, DEEP_OUT.copy()),
        (True, X[0], WEIGHT, BIAS, BIAS, BIAS.copy()),
        (True, X, WEIGHT[:0], None, None, None),
        (True, _read_only(X.copy()), WEIGHT, BIAS, None, OUT),
        (False, X, WEIGHT.T, None, None, None),
        (False, X, WEIGHT[:, :5], None, None, None),
        (False, X[..., None][0, 0], WEIGHT, None, None, None),
        (False, X[0, 0], WEIGHT, None, None, None),
        (False, X.T, WEIGHT, None, None, None),
        (False, X, BIAS, None, None, None),
        (False, X, WEIGHT.astype(np.float64), None, None, None),
        (False, X, WEIGHT, BIAS[:4], None, None),
        (False, X, WEIGHT, BIAS[None], None, None),
        (False, X, WEIGHT, None, OUT[:3], None),
        (False, DEEP, WEIGHT, None, DEEP_OUT.reshape(8, 5), None),
        (False, DEEP, WEIGHT, None, DEEP_OUT.reshape(4, 2, 5), None),
        (False, X, WEIGHT, None, None, OUT[0]),
        (False, X, WEIGHT, None, None, _read_only(OUT.copy())),
        (False, X, WEIGHT, BIAS, OUT, OUT),  # over the residual: the checks see to it
        (False, X, X, None, None, X[:, :4].copy()[:, :3]),
        (False, X[:, :5].copy(), np.zeros((5, 5), np.float32), None, OUT, OUT),
        (False, None, WEIGHT, None, None, None),
        (False, X, None, None, None, None),
        (False, X, X.tolist(), None, None, None),
    ],
)
def test_affine_is_a_layer_that_needs_no_further_check(expected, x, weight, bias, residual, out):
    assert native.affine(x, weight, bias, residual, out) is expected
    with pytest.raises(TypeError):
        native.affine(x, weight, bias, residual)


def test_affine_sees_an_output_over_what_is_read():
    memory = np.zeros(100, np.float32)
    x, weight, bias = memory[:24].reshape(4, 6), memory[24:54].reshape(5, 6), memory[54:59]
    assert native.affine(x, weight, bias, None, memory[60:80].reshape(4, 5))
    for start in (4, 23, 30, 50, 58):
        assert not native.affine(x, weight, bias, None, memory[start : start + 20].reshape(4, 5))


def test_an_array_is_no_choice():
    with pytest.raises(ValueError, match="activation: expected one of"):
        ops.linear(X, WEIGHT, activation=np.array(["relu", "gelu"]))


@pytest.mark.parametrize(
    ("expected", "x", "upper"),
    [
        (True, [], 0),
        (True, [0, 2, 1], 3),
        (True, [[0, 2], [1, 1]], 3),
        (True, [2**62], 2**62 + 1),
        (False, [0], 0),
        (False, [0, 3], 3),
        (False, [-1, 2], 3),
        (False, [-(2**63)], 3),
        (False, [2**63 - 1], 3),
    ],
)
def test_within_knows_both_bounds(expected, x, upper):
    assert native.within(np.array(x, np.int64), upper) is expected
    assert native.within(np.array(x, np.int64)[::-1].copy(), upper) is expected
    assert not native.within(np.array([0], np.int32), 1)  # others are converted first
    assert not native.within(np.arange(6)[::2], 9)
    assert not native.within([0], 1)
    assert not native.within(np.array([0]), np.int64(1))  # the checks make an int of it
    assert not native.within(np.array([0]), -1)
    assert not native.within(np.array([0]), 2**70)


@pytest.mark.parametrize(
    ("expected", "x", "last"),
    [
        (True, [0], 0),
        (True, [0], None),
        (True, [0, 2, 2, 5], 5),
        (True, [0, 2, 2, 5], None),
        (False, [], None),
        (False, [1, 2], None),
        (False, [0, 2], 3),
        (False, [0, 2, 1], None),
        (False, [0, 2, 1, 3], 3),
    ],
)
def test_rising_looks_at_every_step(expected, x, last):
    assert native.rising(np.array(x, np.int64), last) is expected
    assert not native.rising(np.array([x], np.int64), last)
    assert not native.rising(x, last)
    assert not native.rising(np.array([0, 1]), np.int64(1))


def test_counts_of_rows_may_be_numpys():
    dout, index = np.ones((2, 1), np.float32), np.array([0, 1])
    given = ops.embedding_sum_backward(
        dout, index, index, num_embeddings=np.int64(2), num_positions=np.int64(3)
    )
    assert [x if x is None else x.ravel().tolist() for x in given] == [[1, 1], [1, 1, 0], None]


def test_the_first_calls_may_come_from_several_threads():
    code = """
import os, threading
import numpy as np
from evergrad import ops
x, weight, barrier = np.ones((4, 6), np.float32), np.ones((3, 6), np.float32), threading.Barrier(4)
def work():
    barrier.wait()
    ops.linear(x, weight)
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
os._exit(any(thread.is_alive() for thread in threads))
"""
    for _ in range(6):  # each hung with a probability of a half
        succeeds(code, BACKEND="native")
