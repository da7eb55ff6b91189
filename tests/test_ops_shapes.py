"""Shapes and options drawn by hypothesis, for the ops whose blocking has the most corners."""

from __future__ import annotations

from typing import Any

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from evergrad.bench import cases
from evergrad.bench.op import Case, Op
from op_support import BACKENDS, SEED, assert_within_budget, exact_and_naive, run, using

sizes = st.one_of(st.integers(1, 40), st.sampled_from((63, 64, 65, 127, 129, 200)))
rows = st.integers(1, 9)


def check(op: Op, dims: dict[str, Any]) -> None:
    problem, dout, exact, naive = exact_and_naive(Case(op, dims))
    for backend in BACKENDS:
        with using(backend):
            assert_within_budget(op, run(problem, dout), exact, naive)


def drawn(examples: int) -> Any:
    """The seed is ours; a failing example is printed, minimal, by hypothesis."""

    def decorate(test: Any) -> Any:
        return seed(SEED)(settings(max_examples=examples, deadline=None, database=None)(test))

    return decorate


@drawn(examples=40)
@given(rows, sizes, st.sampled_from((-1, 0)))
def test_softmax(m: int, n: int, dim: int) -> None:
    check(cases.SOFTMAX, dict(shape=(m, n), dim=dim))


@drawn(examples=40)
@given(rows, st.integers(5, 300), st.booleans(), st.booleans(), st.booleans())
def test_layer_norm(m: int, n: int, affine: bool, bias: bool, residual: bool) -> None:
    dims = dict(rows=(m,), normalized_shape=(n,), affine=affine, bias=bias, residual=residual)
    check(cases.LAYER_NORM, dims)


@drawn(examples=60)
@given(sizes, sizes, sizes, st.tuples(st.booleans(), st.booleans()))
def test_matmul(m: int, k: int, n: int, transposed: tuple[bool, bool]) -> None:
    check(cases.MATMUL, dict(m=m, k=k, n=n, transposed=transposed))


@drawn(examples=60)
@given(
    batch=st.integers(1, 2),
    tokens=st.tuples(st.integers(0, 150), st.integers(0, 150)),
    groups=st.sampled_from(((1, 1), (2, 2), (4, 2), (3, 1))),
    head_dim=st.integers(1, 80),
    is_causal=st.booleans(),
)
def test_attention(
    batch: int, tokens: tuple[int, int], groups: tuple[int, int], head_dim: int, is_causal: bool
) -> None:
    dims = dict(batch=batch, tokens=tokens, heads=groups, head_dim=head_dim, is_causal=is_causal)
    check(cases.ATTENTION, dims)
