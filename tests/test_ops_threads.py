"""The same bits for any number of threads, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad.bench.op import Case
from op_support import BACKENDS, assert_same_bits, each_case, exact_and_naive, run, using

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
