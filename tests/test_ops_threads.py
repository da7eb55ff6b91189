"""The same bits for any number of threads, forward and backward."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import ops
from evergrad.bench.op import Case
from op_support import BACKENDS, SEED, assert_same_bits, each_case, exact_and_naive, run, using

PARALLEL = [backend for backend in BACKENDS if backend != "reference"]


@each_case(lambda case: case.dims is case.op.large)
@pytest.mark.parametrize("backend", PARALLEL)
def test_same_bits(case: Case, backend: str) -> None:
    problem, dout, *_ = exact_and_naive(case)
    with using(backend):
        with evergrad.num_threads(1):
            wanted = run(problem, dout)
        for threads in (2, 3):
            with evergrad.num_threads(threads):
                assert_same_bits(run(problem, dout), wanted)


@each_case(lambda case: case.dims is case.op.tests[-1])
@pytest.mark.parametrize("backend", PARALLEL)
def test_more_threads_than_work(case: Case, backend: str) -> None:
    problem, dout, *_ = exact_and_naive(case)
    with using(backend):
        wanted = run(problem, dout)
        with evergrad.num_threads(7):
            assert_same_bits(run(problem, dout), wanted)


@each_case(lambda case: case.dims is case.op.large)
@pytest.mark.parametrize("backend", PARALLEL)
def test_same_bits_at_another_address(case: Case, backend: str) -> None:
    """Alignment decides nothing either."""
    problem, dout, *_ = exact_and_naive(case)

    def moved(value: Any) -> Any:
        is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        if not is_float or not value.flags.c_contiguous:
            return value
        inside = np.empty(value.size + 1, value.dtype)[1:].reshape(value.shape)
        inside[...] = value
        return inside

    elsewhere = problem.with_args(**{name: moved(value) for name, value in problem.args.items()})
    with using(backend):
        assert_same_bits(run(elsewhere, dout), run(problem, dout))


@pytest.mark.parametrize("n", [5, 8, 11, 19, 40])
@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax], ids=lambda op: op.__name__)
@pytest.mark.parametrize("backend", PARALLEL)
def test_same_bits_with_scratch_right_behind(backend: str, op: Any, n: int) -> None:
    """A kernel's own memory may lie close behind its input: compiled loops test for that."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    x = np.random.default_rng(SEED).standard_normal((1, n), np.float32)
    out = np.empty_like(x)
    with using(backend):
        wanted = op(x).tobytes()
        for size in range(x.nbytes, 2 * x.nbytes + 256, 16):
            blocks = [libc.malloc(size) for _ in range(40)]
            first = min(range(39), key=lambda i: (blocks[i + 1] - blocks[i]) % 2**64)
            floats = ctypes.c_float * n
            copy = np.frombuffer(floats.from_address(blocks[first]), np.float32).reshape(x.shape)
            copy[...] = x
            libc.free(blocks.pop(first + 1))  # the next request for this size gets it
            op(copy, out=out)
            for block in blocks:
                libc.free(block)
            assert out.tobytes() == wanted, f"a block of {size} bytes behind the input"
