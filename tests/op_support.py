"""What the tests that are generated from the table of op cases share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad.bench import cases
from evergrad.bench.op import Case, Op, Problem, cast

SEED = int(os.environ.get("EVERGRAD_SEED", "0"))
ISAS: list[str] = evergrad.show_config()["isas"]

#: Every way to compute an op here: the backends, native once for each ISA of this machine.
BACKENDS = [
    each
    for name in evergrad.available_backends()
    for each in ([f"native:{isa}" for isa in ISAS] if name == "native" else [name])
]
#: Without the slower ISAs.
FAST = [each for each in BACKENDS if not each.startswith("native:") or each.endswith(ISAS[-1])]

CASES = list(cases.tested())


def each_case(keep: Any = lambda case: True) -> pytest.MarkDecorator:
    """Parametrize a test over the cases of the table."""
    chosen = [case for case in CASES if keep(case)]
    return pytest.mark.parametrize("case", chosen, ids=[case.id for case in chosen])


def each_op(keep: Any = lambda op: True) -> pytest.MarkDecorator:
    chosen = [op for op in cases.OPS if keep(op)]
    return pytest.mark.parametrize("op", chosen, ids=[op.label for op in chosen])


each_backend = pytest.mark.parametrize("backend", BACKENDS)


def plain(op: Op) -> Problem:
    """The op's plain case, drawn."""
    return Case(op, op.tests[0]).problem(SEED)


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Compute in ``numba``, ``reference``, ``native`` or ``native:<isa>``."""
    name, _, isa = backend.partition(":")
    with evergrad.use_backend(name):
        if not isa:
            yield
            return
        from evergrad import _native

        previous = _native.get_isa()
        _native.set_isa(isa)
        try:
            yield
        finally:
            _native.set_isa(previous)


def run(problem: Problem, dout: Any = None) -> dict[str, Any]:
    """Outputs, and with a cotangent also gradients, in the active backend."""
    outputs = problem.forward()
    if dout is None:
        return outputs
    return {**outputs, **problem.backward(outputs, dout)}


def cotangent(case: Case, problem: Problem) -> Any:
    """A random cotangent, float32; None for an op without a backward."""
    if not problem.op.grads:
        return None
    with evergrad.use_backend("reference"):
        return problem.cotangent(case.rng(SEED + 1), problem.forward())


@lru_cache(maxsize=8)
def exact_and_naive(case: Case) -> tuple[Problem, Any, dict[str, Any], dict[str, Any]]:
    """The problem, its cotangent, its results in float64, and those of the float32 formula."""
    problem = case.problem(SEED)
    dout = cotangent(case, problem)
    with evergrad.use_backend("reference"):
        exact = run(problem.cast(np.float64), cast(dout, np.float64))
        naive = run(problem, dout)
    return problem, dout, exact, naive


def error(op: Op, name: str, got: Any, exact: Any) -> float:
    """The largest error over the largest magnitude, or over each element's own (`op.relative`).

    NaN and infinity have to be where they are in `exact`.
    """
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    assert got.shape == exact.shape, f"shape {got.shape}, expected {exact.shape}"
    finite = np.isfinite(exact)
    if not np.array_equal(got[~finite], exact[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(got[finite]).all():
        return np.inf
    difference, magnitude = np.abs(got[finite] - exact[finite]), np.abs(exact[finite])
    if not difference.any():
        return 0.0
    scale = magnitude if name in op.relative else magnitude.max()
    return float(np.max(difference / np.maximum(scale, max(op.unit, np.finfo(np.float32).tiny))))


def assert_within_budget(
    op: Op, got: Mapping[str, Any], exact: Mapping[str, Any], naive: Mapping[str, Any]
) -> None:
    """At most twice the error of the naive float32 formula, plus a floor."""
    assert got.keys() == exact.keys()
    for name, value in got.items():
        if exact[name] is None:
            assert value is None, name
            continue
        if isinstance(exact[name], np.ndarray):
            assert isinstance(value, np.ndarray), name
            is_index = exact[name].dtype.kind == "i"
            assert value.dtype == (exact[name].dtype if is_index else np.float32), name
        else:
            assert type(value) is type(exact[name]), name
        found = error(op, name, value, exact[name])
        budget = 2 * error(op, name, naive[name], exact[name]) + op.floor
        assert found <= budget, f"{name}: error {found:.3g}, budget {budget:.3g}"


def assert_same_bits(got: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        if value is None or wanted[name] is None:
            assert value is wanted[name], name
        else:
            left, right = np.asarray(value), np.asarray(wanted[name])
            assert (left.dtype, left.shape) == (right.dtype, right.shape), name
            assert left.tobytes() == right.tobytes(), f"{name}: different bits"


def python(
    code: str, timeout: float = 60, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; an environment variable that is None is unset."""
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={name: value for name, value in env.items() if value is not None},
    )


def succeeds(code: str, timeout: float = 60, **environment: str | None) -> str:
    """What the code prints; it must neither fail nor crash nor hang."""
    child = python(code, timeout, **environment)
    assert child.returncode == 0, f"exit {child.returncode}\n{child.stderr[-3000:]}"
    return child.stdout.strip()
