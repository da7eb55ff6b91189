"""The reference's gradients against central differences in float64, with random cotangents.

Parity ties the other backends to the reference; this ties the reference to the forward formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad.bench.op import Case, Problem, cast
from op_support import SEED, cotangent, each_case

STEP = 1e-6
DIRECTIONS = 3


@each_case(lambda case: case.op.grads)
def test_against_central_differences(case: Case) -> None:
    rng = case.rng(SEED + 2)
    problem = case.problem(SEED)
    dout = cast(cotangent(case, problem), np.float64)
    problem = problem.cast(np.float64)
    with evergrad.use_backend("reference"):
        grads = problem.backward(problem.forward(), dout)
        for name, grad_name in case.op.grads.items():
            value, grad = problem.args[name], grads[grad_name]
            if value is None:
                # Without a bias nothing tells backward to leave its gradient out.
                assert grad is None or name == "bias", grad_name
                continue
            assert grad.shape == value.shape, grad_name
            for _ in range(DIRECTIONS):
                direction = rng.standard_normal(value.shape)
                slope = directional(problem, name, direction, dout)
                if name == "x" and problem.args.get("dresidual") is not None:
                    slope += np.vdot(problem.args["dresidual"], direction)
                if np.isnan(slope):  # the mean over no counted target: there is nothing to learn
                    assert not grad.any(), grad_name
                    continue
                size = np.abs(grad * direction).sum()
                assert np.vdot(grad, direction) == pytest.approx(
                    slope, rel=1e-6, abs=1e-7 * size + 1e-9
                )


def directional(problem: Problem, name: str, direction: np.ndarray, dout: Any) -> float:
    """d/dh of <dout, forward(... + h direction)> at 0."""

    def at(h: float) -> float:
        moved = problem.with_args(**{name: np.asarray(problem.args[name] + h * direction)})
        return float(np.vdot(dout, moved.forward()[problem.op.returns[0]]))

    return (at(STEP) - at(-STEP)) / (2 * STEP)
