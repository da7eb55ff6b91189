"""Every backend on every ISA against the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evergrad.bench.op import Case
from op_support import (
    BACKENDS,
    SEED,
    assert_same_bits,
    assert_within_budget,
    each_backend,
    each_case,
    each_op,
    exact_and_naive,
    plain,
    run,
    using,
)


@each_case()
@each_backend
def test_within_twice_the_naive_error(case: Case, backend: str) -> None:
    problem, dout, exact, naive = exact_and_naive(case)
    with using(backend):
        got = run(problem, dout)
    assert_within_budget(case.op, got, exact, naive)


@each_op()
@each_backend
def test_readonly_and_32_bit_inputs(op: Any, backend: str) -> None:
    """What a user may hand over without a copy: read-only arrays, int32 indices."""
    problem = plain(op)

    def hand_over(name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or name in op.updates:
            return value
        value = value.astype(np.int32) if value.dtype.kind == "i" else value.view()
        value.flags.writeable = False
        return value

    variant = problem.with_args(**{k: hand_over(k, v) for k, v in problem.args.items()})
    dout = problem.cotangent(np.random.default_rng(SEED), problem.forward()) if op.grads else None
    if isinstance(dout, np.ndarray):
        dout.flags.writeable = False
    with using(backend):
        assert_same_bits(run(variant, dout), run(problem, dout))


@pytest.mark.parametrize("layout", ["slices", "transposed"])
@each_op(lambda op: op.strided)
@each_backend
def test_strided_inputs(op: Any, layout: str, backend: str) -> None:
    """Outer strides cost no copy and change no bit.

    The swapped axes of a matrix are its inner ones: another kernel may read it then, in another
    order of sums, within the error budget.
    """
    problem, dout, exact, naive = exact_and_naive(Case(op, op.tests[0]))

    def strided(value: np.ndarray) -> np.ndarray:
        if layout == "slices":  # every axis but the last is cut out of something larger
            *outer, inner = value.shape
            spread = np.full([*(2 * n for n in outer), inner + 3], np.nan, value.dtype)
            inside = spread[(*(slice(None, None, 2),) * len(outer), slice(1, -2))]
        else:  # the first two axes swapped in memory
            inside = np.empty_like(np.swapaxes(value, 0, 1), order="C").swapaxes(0, 1)
        inside[...] = value
        return inside

    variant = problem.with_args(
        **{name: strided(problem.args[name]) for name in op.strided if name in problem.args}
    )
    arrays = [variant.args[name] for name in op.strided if name in variant.args]
    with using(backend):
        got = run(variant, dout)
        assert_within_budget(op, got, exact, naive)
        if all(x is None or x.strides[-1] == x.itemsize for x in arrays):
            assert_same_bits(got, run(problem, dout))


def test_the_machine_has_what_it_is_tested_for() -> None:
    assert {"reference"} <= set(BACKENDS)
