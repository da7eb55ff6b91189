"""Buffers that are handed over: written, or added to where promised, and nothing around touched."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from evergrad.bench import cases
from evergrad.bench.op import ACCUMULATED, Case, Op
from op_support import (
    SEED,
    assert_same_bits,
    assert_within_budget,
    cotangent,
    each_backend,
    each_case,
    each_op,
    exact_and_naive,
    plain,
    run,
    using,
)

SENTINEL = np.float32(-12345.678)
# Odd numbers of elements: neither the buffer nor its end falls on a vector boundary.
BEFORE, AFTER = 3, 37


class Framed:
    """An array inside a larger one whose other elements have to stay as they are."""

    def __init__(self, value: np.ndarray) -> None:
        self.whole = np.full(BEFORE + value.size + AFTER, SENTINEL)
        self.inside = self.whole[BEFORE : BEFORE + value.size].reshape(value.shape)
        self.inside[...] = value

    def assert_frame_intact(self) -> None:
        assert (self.whole[:BEFORE] == SENTINEL).all()
        assert (self.whole[self.whole.size - AFTER :] == SENTINEL).all()


#: Arrays of integers that ops take.
INDICES = {
    *("input", "target", "positions", "segments", "rows", "skipped"),
    *("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k"),
}


def takes(op: Op, name: str, backward: bool) -> bool:
    return name in (op.backward if backward else op.forward).__annotations__


def small(case: Case) -> bool:
    return case.dims is not case.op.large


@each_case(lambda case: small(case) and takes(case.op, "out", backward=False))
@each_backend
def test_out(case: Case, backend: str) -> None:
    problem = case.problem(SEED)
    with using(backend):
        wanted = problem.forward()
        framed = Framed(np.full_like(wanted["out"], np.nan, order="C"))
        got = problem.forward(out=framed.inside)
    assert got["out"] is framed.inside
    assert_same_bits(got, wanted)
    framed.assert_frame_intact()


def frozen(values: dict[str, Any]) -> dict[str, Any]:
    """Copies that may not be written, laid out like the originals."""

    def freeze(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.copy(order="K")
            value.flags.writeable = False
        return value

    return {name: freeze(value) for name, value in values.items()}


# Of linear every case: what its backward computes depends on the activation.
@each_case(lambda case: case.dims is case.op.tests[0] or (case.op is cases.LINEAR and small(case)))
@each_backend
def test_what_is_only_read_may_be_read_only(case: Case, backend: str) -> None:
    """Weights may lie in a mapped file."""
    problem, op = case.problem(SEED), case.op
    dout = cotangent(case, problem)
    given = {name: value for name, value in problem.args.items() if name not in op.updates}
    with using(backend):
        outputs = problem.forward()
        assert_same_bits(problem.with_args(**frozen(given)).forward(), outputs)
        if op.grads:
            read = frozen(problem.backward_args(outputs, dout))
            got = dict(zip(op.grads.values(), as_tuple(op.backward(**read)), strict=True))
            assert_same_bits(got, problem.backward(outputs, dout))


@each_case(lambda case: small(case) and case.op.updates)
@each_backend
def test_in_place_updates(case: Case, backend: str) -> None:
    problem = case.problem(SEED)
    given = {name: problem.args[name] for name in case.op.updates}
    frames = {name: Framed(value) for name, value in given.items() if value is not None}
    with using(backend):
        wanted = problem.forward()
        problem.forward(**{name: frame.inside for name, frame in frames.items()})
    assert_same_bits({name: frame.inside for name, frame in frames.items()}, wanted)
    for frame in frames.values():
        frame.assert_frame_intact()


@each_case(lambda case: small(case) and case.op.grads)
@each_backend
def test_gradient_buffers(case: Case, backend: str) -> None:
    """Overwritten, but parameter gradients are added to what is there."""
    op = case.op
    problem, dout, exact, naive = exact_and_naive(case)
    with using(backend):
        outputs = problem.forward()
        grads = problem.backward(outputs, dout)
        frames = {
            name: Framed(np.ones_like(grad, order="C") if name in ACCUMULATED else grad * np.nan)
            for name, grad in grads.items()
            if grad is not None and takes(op, name, backward=True)
        }
        got = problem.backward(outputs, dout, **{name: f.inside for name, f in frames.items()})
    for name, frame in frames.items():
        assert got[name] is frame.inside, name
        frame.assert_frame_intact()
        if name in ACCUMULATED:
            one_more = {name: exact[name] + 1}, {name: naive[name] + 1}
            assert_within_budget(op, {name: got[name]}, *one_more)
        else:
            assert_same_bits({name: got[name]}, {name: grads[name]})


PLAIN = {op.label: Case(op, op.tests[0]) for op in cases.OPS}


@each_op(lambda op: op.grads)
@each_backend
def test_what_is_not_needed_is_none(op: Op, backend: str) -> None:
    problem, dout, exact, naive = exact_and_naive(PLAIN[op.label])
    with using(backend):
        outputs = problem.forward()
        for unwanted in op.grads.values():
            if not takes(op, f"need_{unwanted}", backward=True):
                continue
            got = problem.backward(outputs, dout, **{f"need_{unwanted}": False})
            assert got.pop(unwanted) is None
            others = [{name: all_of[name] for name in got} for all_of in (exact, naive)]
            assert_within_budget(op, got, *others)


@pytest.mark.parametrize("dims", cases.CROSS_ENTROPY.tests, ids=str)
@each_backend
def test_cross_entropy_gradient_over_its_logits(dims: dict[str, Any], backend: str) -> None:
    """The largest array of a model need not exist twice."""
    case = Case(cases.CROSS_ENTROPY, dims)
    problem = case.problem(SEED)
    dout = cotangent(case, problem)
    with using(backend):
        outputs = problem.forward()
        wanted = problem.backward(outputs, dout)["dlogits"]
        logits = problem.args["logits"]
        assert problem.backward(outputs, dout, dlogits=logits)["dlogits"] is logits
    assert_same_bits({"dlogits": logits}, {"dlogits": wanted})


@each_op(
    lambda op: set(op.grads.items()) == {("x", "dx")} and op.shapes["x"] == op.shapes.get("out")
)
@each_backend
def test_in_place(op: Op, backend: str) -> None:
    """Element by element, an output may replace its input, and a gradient its cotangent."""
    problem = plain(op)
    with using(backend):
        outputs = problem.forward()
        dout = problem.cotangent(np.random.default_rng(SEED), outputs)
        wanted = run(problem, dout)
        if takes(op, "out", backward=False):
            x = problem.args["x"].copy()
            assert_same_bits(problem.with_args(x=x).forward(out=x), outputs)
        overwritten = dout.copy()
        got = problem.backward(outputs, overwritten, dx=overwritten)
    assert_same_bits(got, {"dx": wanted["dx"]})


def over_each_input(call: Any, args: dict[str, Any], result: str, wanted: np.ndarray) -> None:
    """Hand each input of the right shape over as the output: refused by name, or right."""
    for name, x in args.items():
        if not isinstance(x, np.ndarray) or x.dtype != wanted.dtype or x.shape != wanted.shape:
            continue
        buffer = np.array(x)
        try:
            got = call(**{**args, name: buffer, result: buffer})
        except ValueError as error:
            refusal = str(error)
        else:
            where = f"{result} over {name}"
            assert_same_bits({where: got[result]}, {where: wanted})
            continue
        assert refusal.startswith(f"{result}: ")


@each_case(lambda case: small(case) and (takes(case.op, "out", backward=False) or case.op.grads))
@each_backend
def test_an_output_over_an_input_is_right_or_refused(case: Case, backend: str) -> None:
    problem, op = case.problem(SEED), case.op
    dout = cotangent(case, problem)
    with using(backend):
        outputs = problem.forward()
        if takes(op, "out", backward=False):
            args = {k: v for k, v in problem.forward_args().items() if v is not None}
            over_each_input(
                lambda **given: problem.with_args(**given).forward(out=given["out"]),
                args, "out", outputs["out"],
            )  # fmt: skip
        if not op.grads:
            return
        grads = problem.backward(outputs, dout)
        args = problem.backward_args(outputs, dout)
        for name in set(grads) - ACCUMULATED:
            if takes(op, name, backward=True) and grads[name] is not None:
                over_each_input(
                    lambda **given: dict(zip(grads, as_tuple(op.backward(**given)), strict=True)),
                    args, name, grads[name],
                )  # fmt: skip


@each_case(lambda case: small(case) and len(case.op.grads) > 1)
@each_backend
def test_gradients_that_share_a_buffer_are_refused(case: Case, backend: str) -> None:
    """One of them would be lost, or both be added up, in silence."""
    problem, op = case.problem(SEED), case.op
    dout = cotangent(case, problem)
    with using(backend):
        outputs = problem.forward()
        grads = problem.backward(outputs, dout)
        names = [
            name
            for name, grad in grads.items()
            if grad is not None and grad.size and takes(op, name, backward=True)
        ]
        for first, second in itertools.combinations(names, 2):
            memory = np.zeros(max(grads[first].size, grads[second].size), np.float32)
            shared = {
                name: memory[: grads[name].size].reshape(grads[name].shape)
                for name in (first, second)
            }
            with pytest.raises(ValueError, match="expected memory of its own"):
                problem.backward(outputs, dout, **shared)


def over_each_index(call: Any, args: dict[str, Any], buffers: dict[str, np.ndarray]) -> None:
    """Lay each buffer over each array of indices: refused by its name."""
    indices = {k: x for k, x in args.items() if isinstance(x, np.ndarray) and x.dtype == np.int64}
    for (name, buffer), (index_name, index) in itertools.product(buffers.items(), indices.items()):
        if not buffer.size or not index.size:
            continue
        memory = np.zeros(max(buffer.nbytes, index.nbytes), np.uint8)
        read = memory[: index.nbytes].view(np.int64).reshape(index.shape)
        written = memory[: buffer.nbytes].view(buffer.dtype).reshape(buffer.shape)
        read[...] = index
        with pytest.raises(ValueError, match=f"{name}: .* overlaps {index_name}"):
            call(**{**args, index_name: read, name: written})
        np.testing.assert_array_equal(read, index)


@each_case(lambda case: small(case) and not INDICES.isdisjoint(case.op.shapes))
@each_backend
def test_an_output_over_indices_is_refused(case: Case, backend: str) -> None:
    """They are read while it is written: rows of anywhere would be next."""
    problem, op = case.problem(SEED), case.op
    dout = cotangent(case, problem)
    with using(backend):
        outputs = problem.forward()
        written = {
            name: x
            for name, x in outputs.items()
            if isinstance(x, np.ndarray) and (name in op.updates or takes(op, name, backward=False))
        }
        over_each_index(op.forward, problem.forward_args(), written)
        if op.grads:
            grads = problem.backward(outputs, dout)
            taken = {
                name: x
                for name, x in grads.items()
                if x is not None and takes(op, name, backward=True)
            }
            over_each_index(op.backward, problem.backward_args(outputs, dout), taken)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("rows", [(3,), (2, 9), (0,)], ids=str)
@each_backend
def test_embedding_adds_rows(rows: tuple[int, ...], backend: str) -> None:
    problem = Case(cases.EMBEDDING, dict(rows=rows, num=7, dim=33)).problem(SEED)
    with using(backend):
        looked_up = problem.forward()["out"]
        frame = Framed(np.ones_like(looked_up))
        problem.forward(out=frame.inside, accumulate=True)
    np.testing.assert_array_equal(frame.inside, looked_up + np.float32(1))
    frame.assert_frame_intact()


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@each_backend
def test_attention_gradients_inside_one_packed_array(packed: bool, backend: str) -> None:
    """dquery, dkey and dvalue as slices of the gradient of one projection."""
    if packed:
        case = Case(cases.PACKED_ATTENTION, dict(tokens_q=(5, 12, 3), heads=(4, 2), head_dim=10))
    else:
        dims = dict(batch=2, tokens=(19, 19), heads=(4, 2), head_dim=10, is_causal=True, qkv=True)
        case = Case(cases.ATTENTION, dims)
    problem = case.problem(SEED)
    dout = cotangent(case, problem)
    with using(backend):
        outputs = problem.forward()
        wanted = problem.backward(outputs, dout)
        frame = Framed(np.full((*dout.shape[:-2], 8, 10), np.nan, np.float32))
        slices = np.split(frame.inside, (4, 6), axis=-2)
        problem.backward(outputs, dout, **dict(zip(wanted, slices, strict=True)))
    assert_same_bits(dict(zip(wanted, slices, strict=True)), wanted)
    frame.assert_frame_intact()
