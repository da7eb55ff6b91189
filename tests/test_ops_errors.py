"""Bad input, derived from each op's argument table: the same named error everywhere, never a crash.

An op's `shapes` say how the sizes of its arrays hang together, so every way to break one of them
can be enumerated: another type, dtype, rank or stride, a size that no longer fits the others, an
index out of range, a buffer that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops, optim
from evergrad.bench import cases
from evergrad.bench.op import Op, Problem
from evergrad.models.prompting import expect_count
from evergrad.ops import _check
from op_support import BACKENDS, FAST, SEED, plain, succeeds, using


@dataclass(frozen=True)
class Call:
    """A valid call with every optional array given, buffers too."""

    op: Op
    function: Callable[..., Any]
    args: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.function.__name__}{self.op.variant and '.'}{self.op.variant}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: x for name, x in self.args.items() if name in self.op.shapes}

    def is_written(self, name: str) -> bool:
        if self.function.__name__.endswith("_backward"):
            return name in self.op.grads.values()
        return name == "out" or name in self.op.updates

    def run(self, **changed: Any) -> Any:
        args = {k: v.copy(order="K") if self.is_written(k) else v for k, v in self.args.items()}
        return self.function(**{**args, **changed})


@dataclass(frozen=True)
class Mistake:
    """A call's argument replaced by something it must refuse."""

    call: Call
    name: str
    kind: str
    value: Any
    raises: type[Exception] | tuple[type[Exception], ...]

    @property
    def id(self) -> str:
        return f"{self.call.id}-{self.name}-{self.kind}"


def valid_calls(op: Op) -> Iterator[Call]:
    """Forward, and backward, with every buffer handed over that they take."""
    problem = plain(op)
    with evergrad.use_backend("reference"):
        outputs = problem.forward()
        # Only what the function has a parameter for is bound.
        yield Call(op, op.forward, problem.forward_args(**zeros(outputs)))
        if op.grads:
            dout = problem.cotangent(np.random.default_rng(SEED), outputs)
            grads = problem.backward(outputs, dout)
            yield Call(op, op.backward, problem.backward_args(outputs, dout, **zeros(grads)))


def zeros(results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.zeros_like(x, order="C")
        for name, x in results.items()
        if isinstance(x, np.ndarray)
    }


def mistakes(call: Call) -> Iterator[Mistake]:
    for name, x in call.arrays.items():
        for kind, value, raises in [
            *wrong_types(x),
            *wrong_dtypes(x),
            *wrong_ranks(call, name, x),
            *wrong_sizes(call, name, x),
            *wrong_strides(call, name, x),
            *wrong_values(call, name, x),
            *unwritable(call, name, x),
        ]:
            if (name, kind) == ("attn_mask", "dtype-?"):
                continue  # a mask may be boolean
            yield Mistake(call, name, kind, value, raises)
    for name, values in call.op.invalid.items():
        if name in call.args:
            for i, value in enumerate(values):
                yield Mistake(call, name, f"invalid{i}", value, ValueError)


Wrong = Iterator[tuple[str, Any, Any]]


def wrong_types(x: np.ndarray) -> Wrong:
    yield "list", x.tolist(), TypeError
    yield "text", "array", TypeError
    yield "number", 1.5, TypeError
    # Arrays by inheritance that are not what their memory says.
    yield "masked", np.ma.array(x), TypeError
    if x.ndim == 2:
        yield "matrix", x.view(np.matrix), TypeError


def wrong_dtypes(x: np.ndarray) -> Wrong:
    kinds = (
        ["f4", "f8", "c8", "?", "O"]
        if x.dtype.kind == "i"
        else ["f2", "i4", "i8", "c8", "?", "O", ">f4"]
    )
    for kind in kinds:
        yield f"dtype-{kind}", np.ones(x.shape, kind), TypeError


def wrong_ranks(call: Call, name: str, x: np.ndarray) -> Wrong:
    symbols = call.op.shapes[name].split()
    if "*" not in symbols:
        yield "rank-0", np.zeros((), x.dtype), ValueError
        yield "rank-less", np.zeros(x.shape[1:], x.dtype), ValueError
        if call.op is not cases.MATMUL:  # there leading dimensions are a batch
            yield "rank-more", np.zeros((2, *x.shape), x.dtype), ValueError
    elif len(symbols) > 1:
        yield "rank-0", np.zeros((), x.dtype), ValueError


def wrong_sizes(call: Call, name: str, x: np.ndarray) -> Wrong:
    """A size that another array has too can neither grow nor shrink on its own."""
    symbols = call.op.shapes[name].split()
    elsewhere = {s for other in call.arrays if other != name for s in call.op.shapes[other].split()}
    for axis, symbol in zip(range(-1, -1 - len(symbols), -1), reversed(symbols), strict=True):
        if symbol not in elsewhere or x.ndim < -axis:
            continue
        for kind, size in (
            ("longer", x.shape[axis] + 1),
            ("shorter", x.shape[axis] - 1),
            ("empty", 0),
        ):
            shape = list(x.shape)
            shape[axis] = size
            # What shrinks may leave an index behind that is out of range now.
            raises = (ValueError, IndexError) if call.op.bounds else ValueError
            yield f"{kind}-{symbol.replace('*', 'rows')}", np.zeros(shape, x.dtype), raises


def wrong_strides(call: Call, name: str, x: np.ndarray) -> Wrong:
    if x.dtype.kind == "i":
        return  # converted to int64 anyway
    gapped = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    gapped[...] = x
    yield "gapped", gapped, ValueError
    backwards = x[..., ::-1]
    yield "backwards", backwards, ValueError
    if name not in call.op.strided and x.ndim > 1:
        yield "transposed", np.asfortranarray(x), ValueError
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    yield "odd-address", odd, ValueError


def wrong_values(call: Call, name: str, x: np.ndarray) -> Wrong:
    if name not in call.op.bounds:
        return
    bound = call.op.bounds[name](SimpleNamespace(**plain(call.op).args))
    for value in (bound, -1, 2**62, -(2**62), np.iinfo(np.int64).min):
        bad = x.copy()
        bad.flat[-1] = value
        yield f"value-{value}", bad, IndexError


def unwritable(call: Call, name: str, x: np.ndarray) -> Wrong:
    if call.is_written(name):
        frozen = x.copy()
        frozen.flags.writeable = False
        yield "read-only", frozen, ValueError
        alias = next((o for n, o in call.arrays.items() if n != name and o.nbytes > x.nbytes), None)
        if alias is not None and alias.dtype == x.dtype:
            inside = alias.reshape(-1)[1 : 1 + x.size].reshape(x.shape)
            yield "inside-another", inside, ValueError


CALLS = [call for op in cases.OPS for call in valid_calls(op)]
MISTAKES = [mistake for call in CALLS for mistake in mistakes(call)]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.id for m in MISTAKES])
def test_refused_alike_everywhere(mistake: Mistake) -> None:
    messages = set()
    for backend in BACKENDS:
        with using(backend), pytest.raises(mistake.raises) as caught:
            mistake.call.run(**{mistake.name: mistake.value})
        messages.add(str(caught.value))
    assert len(messages) == 1, messages
    (message,) = messages
    assert message.partition(":")[0] in mistake.call.args, "the message names the argument"
    assert "expected" in message
    assert "got" in message


each_call = pytest.mark.parametrize("call", CALLS, ids=[call.id for call in CALLS])


@each_call
def test_float64_is_for_the_reference(call: Call) -> None:
    """The others refuse it, and the reference does not mix it with float32."""
    floats = [name for name, x in call.arrays.items() if x.dtype.kind == "f"]
    for backend in BACKENDS:
        for name in floats:
            if backend == "reference" and len(floats) == 1:
                continue
            with using(backend), pytest.raises(TypeError, match=r"expected float(32|64)"):
                call.run(**{name: call.args[name].astype(np.float64)})


@each_call
def test_valid_as_it_stands(call: Call) -> None:
    """Else the tests above would prove nothing."""
    for backend in BACKENDS:
        with using(backend):
            call.run()


HUGE = 2**40
EMPTY_BUT_WIDE = """
import numpy as np
from evergrad import ops
for shape in (2**40, 0), (0, 2**40), (0, 2**31, 2**20), (2**31, 0, 2**20):
    x = np.empty(shape, np.float32)
    for op in (ops.relu, ops.gelu, ops.softmax):
        assert op(x).shape == shape
    assert ops.softmax_backward(x, x).shape == shape
    assert ops.dropout(x, seed=1).shape == shape
    assert ops.matmul(x, np.empty((shape[-1], 0), np.float32)).size == 0
x = np.empty((2**40, 0), np.float32)
assert ops.pack_weight(x).shape == x.shape
assert ops.quantize(x, "q8_0").dequantize().shape == x.shape
"""
MANY_BUT_EMPTY = """
import numpy as np
from evergrad import ops
x = np.empty((2**40, 0, 1, 4), np.float32)
out, lse = ops.attention(x, x, x, return_lse=True)
assert out.shape == x.shape
assert ops.attention_backward(x, x, x, x, out, lse)[0].shape == x.shape
x = np.empty((2**40, 2, 0, 4), np.float32)
assert ops.rotary(x, *ops.rotary_table(2, 4)).shape == x.shape
"""


@pytest.mark.parametrize("backend", [each for each in FAST if each.startswith("native:")])
def test_many_empty_sequences(backend: str) -> None:
    """Of native alone: Numba makes a list of the sequences, the reference loops over them."""
    succeeds(MANY_BUT_EMPTY, timeout=30, EVERGRAD_BACKEND=backend.partition(":")[0])


@pytest.mark.parametrize("backend", FAST)
class TestHugeSizes:
    """Sizes that overflow 32 bits, or 64 when multiplied."""

    def test_empty_but_wide(self, backend: str) -> None:
        """A loop over 2**40 empty rows would not end: the child is given half a minute."""
        succeeds(EMPTY_BUT_WIDE, timeout=30, EVERGRAD_BACKEND=backend.partition(":")[0])

    def test_product_that_no_memory_holds(self, backend: str) -> None:
        # A broadcast row is a valid operand: its columns are contiguous.
        a = np.broadcast_to(np.ones(8, np.float32), (HUGE, 8))
        with using(backend), pytest.raises(MemoryError):
            ops.matmul(a, np.ones((8, HUGE // 8), np.float32)[:, :64])

    def test_table_that_no_memory_holds(self, backend: str) -> None:
        with using(backend), pytest.raises(MemoryError):
            ops.embedding_backward(
                np.ones((1, 2**20), np.float32), np.zeros(1, np.int64), 2**31 - 1
            )

    def test_buffer_that_no_memory_holds(self, backend: str) -> None:
        with using(backend):
            for shape in (2**60, (2**31, 2**31), (2**20, 2**20, 2**10)):
                with pytest.raises((MemoryError, ValueError)):
                    ops.empty(shape)
            with pytest.raises(ValueError, match="negative"):
                ops.empty((2, -1))


def test_options_of_another_type() -> None:
    """Options are checked as arrays are: by name."""
    problem: Problem
    for op in cases.OPS:
        problem = plain(op)
        for name, value in problem.forward_args().items():
            if isinstance(value, (bool, np.ndarray)) or value is None:
                continue
            with pytest.raises((TypeError, ValueError), match=name):
                problem.forward(**{name: object()})


@pytest.mark.parametrize("backend", FAST)
def test_zero(backend: str) -> None:
    with using(backend):
        x = np.full(100_001, np.nan, np.float32)
        assert ops.zero_(x[1:]).base is x
        assert np.isnan(x[0])
        assert not x[1:].any()
        with pytest.raises(TypeError, match="x: expected float32"):
            ops.zero_(np.ones(3, np.int32))
        with pytest.raises(ValueError, match="x: expected a C-contiguous array"):
            ops.zero_(x[::2])
        frozen = np.ones(3, np.float32)
        frozen.flags.writeable = False
        with pytest.raises(ValueError, match="x: expected a writable array"):
            ops.zero_(frozen)
        assert frozen.all()


@pytest.mark.parametrize("backend", FAST)
def test_indices_at_odd_addresses_are_copied(backend: str) -> None:
    """C++ may take it for granted that a number of 8 bytes lies at a multiple of 8."""
    odd = np.frombuffer(bytearray(25), np.int64, 3, offset=1)
    assert not odd.flags.aligned
    with using(backend):
        assert _check.indices("x", odd, 1).flags.aligned
        assert _check.offsets("x", odd).flags.aligned


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_whose_elements_share_memory(backend: str) -> None:
    x = np.ones((1, 4, 2, 8), np.float32)
    memory = np.zeros(100, np.float32)

    def strided(*strides: int) -> np.ndarray:
        return np.lib.stride_tricks.as_strided(memory, x.shape, strides)

    cos, sin = ops.rotary_table(4, 8)
    with using(backend):
        for out in (strided(256, 64, 0, 4), strided(256, 32, 16, 4), strided(0, 36, 32, 4)):
            with pytest.raises(ValueError, match="out: expected elements with memory of their own"):
                ops.attention(x, x, x, out=out)
            with pytest.raises(ValueError, match="out: expected elements with memory of their own"):
                ops.rotary(x, cos, sin, out=out)
        rows = np.lib.stride_tricks.as_strided(memory, (3, 8), (16, 4))
        with pytest.raises(ValueError, match="dgate: expected elements with memory of their own"):
            ops.swiglu_backward(x[0, :3, 0].copy(), x[0, :3, 0], x[0, :3, 0], dgate=rows)
        # Gaps are fine, and so are axes out of order.
        ops.attention(
            x, x, x, out=np.zeros((2, 1, 4, 9), np.float32)[..., :8].transpose(1, 2, 0, 3)
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_along_a_single_element_do_not_matter(backend: str) -> None:
    """Turning an axis of one around changes nothing but its stride."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((4, 1, 2, 8), np.float32)
    mask = np.ones((4, 1, 1, 1), np.bool_)
    cos, sin = ops.rotary_table(1, 8)
    turned, turned_mask = x[:, ::-1], mask[:, ::-1, ::-1]
    turned.flags.writeable = turned_mask.flags.writeable = False
    gaps = np.zeros((4, 1, 2, 9), np.float32)[:, ::-1, :, :8]
    gaps[...] = x
    with using(backend):
        wanted, rotated = ops.attention(x, x, x, mask), ops.rotary(x, cos, sin)
        for each in (turned, gaps):
            assert each.strides[1] < 0
            np.testing.assert_array_equal(ops.attention(each, each, each, turned_mask), wanted)
            np.testing.assert_array_equal(ops.rotary(each, cos, sin), rotated)
            np.testing.assert_array_equal(ops.swiglu(each, each), ops.swiglu(x, x))
        out = np.zeros((4, 1, 2, 9), np.float32)[:, ::-1, :, :8]
        ops.attention(x, x, x, out=out)
    np.testing.assert_array_equal(out, wanted)


def test_attention_without_heads() -> None:
    none, one = np.zeros((1, 4, 0, 8), np.float32), np.zeros((1, 4096, 1, 8), np.float32)
    lse = np.zeros((1, 0, 4), np.float32)
    with pytest.raises(ValueError, match="query: expected at least one head"):
        ops.attention(none, one, one)
    with pytest.raises(ValueError, match="query: expected at least one head"):
        ops.attention_backward(none, none, one, one, none, lse)


@pytest.mark.parametrize("norm", [ops.layer_norm, ops.rms_norm])
def test_a_weight_in_the_place_of_the_shape_is_described(norm):
    weight = np.full(1000, 0.123, np.float32)
    with pytest.raises(TypeError, match=r"normalized_shape.*before the weight") as error:
        norm(np.ones((2, 1000), np.float32), weight, weight)
    assert "float32 array of shape (1000,)" in str(error.value)
    assert "0.123" not in str(error.value)


@pytest.mark.parametrize("value", [np.full(1000, 0.123, np.float32), [0.123] * 1000])
def test_a_long_value_is_not_printed_in_full(value):
    q = np.ones((1, 2, 1, 4), np.float32)
    calls = (
        lambda: ops.layer_norm(np.ones((2, 1000), np.float32), value),
        lambda: nn.Rotary(8, theta=value),
        lambda: expect_count("max_new_tokens", value),
        lambda: ops.attention(q, q, q, window_size=value),
        lambda: ops.attention(q, q, q, window_size=(value, value)),
        lambda: optim.AdamW(nn.flatten_(nn.Linear(2, 2)), betas=value),
        lambda: optim.SGD(nn.flatten_(nn.Linear(2, 2)), lr=value),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=r"expected|must") as error:
            call()
        assert len(str(error.value)) < 250
