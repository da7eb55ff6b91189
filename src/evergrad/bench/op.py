"""What the table of op cases is made of: an `Op`, a `Case` of it, and a drawn `Problem`.

The rules of the public API make most of a description superfluous. A forward function returns what
backward needs under fixed names, and a backward function takes cotangent, inputs, saved tensors and
options by those same names; so both calls are bound here by name, and the table states only what
cannot be derived.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from evergrad import ops

#: Gradients of parameters are added to a buffer that is handed over; all others overwrite it.
ACCUMULATED = frozenset({"dweight", "dbias", "dposition_weight", "dsegment_weight"})


@dataclass(frozen=True, kw_only=True)
class Op:
    """One op, described once.

    Parameters
    ----------
    name
        Name in `evergrad.ops`; the twin is `<name>_backward`.
    draw
        ``(rng, **dims) -> arguments`` of forward by public name, float32 and int64. What only
        backward takes (a residual's cotangent) may be among them.
    shapes
        Symbolic shape of every array that either call takes, such as ``"* in"``: ``*`` stands for
        any leading dimensions, equal symbols are equal sizes. Bad shapes are derived from it.
    tests
        Dimensions that tests draw. The first is plain and has no size below 2: bad input is
        derived from it.
    large
        Dimensions large enough to be split over several threads.
    bench
        Dimensions to measure; the first is the one that ``--quick`` keeps.
    bench_forward
        Further ones, of which forward alone is measured.
    flops
        Floating-point operations of forward, counted on the arguments and outputs by name.
    backward_flops
        Those of backward, as a multiple of forward's.
    bytes
        Bytes that forward must move where that is not each array once.
    returns
        Names of forward's outputs. Only the first carries a cotangent.
    keep
        Keywords that make forward return all of them.
    saved
        Further arguments of backward, computed from arguments and outputs.
    grads
        Input to name of its gradient, in backward's order. Empty: no backward.
    updates
        Arguments that forward changes in place.
    strided
        Arguments whose outer dimensions may have any strides.
    bounds
        Index argument to its exclusive bound, computed from the arguments.
    invalid
        Option to values of it that must be refused with a `ValueError`.
    relative
        Results whose error is measured against each element rather than against the largest one:
        nothing cancels in them, so nothing excuses a lost digit.
    floor
        Error that is always granted, next to twice the error of the naive float32 formula.
    unit
        Magnitude that errors are measured against at least: where the formula cancels to nothing
        (the gradient through a softmax over one key), rounding is all that is left.
    torch
        ``(torch.nn.functional, tensors) -> call`` of the same computation in PyTorch.
    same_numbers
        Whether PyTorch's computation gives what ours gives; not where both draw at random.
    numpy
        ``arguments -> call`` of forward in NumPy, where it is a single call of NumPy's: without
        the checks and the error state of our reference backend, which small arrays would feel.
    variant
        Tells apart two entries of one name.
    """

    name: str
    draw: Callable[..., dict[str, Any]]
    shapes: Mapping[str, str]
    tests: Sequence[dict[str, Any]]
    large: dict[str, Any]
    bench: Sequence[dict[str, Any]]
    flops: Callable[[Any], float]
    bench_forward: Sequence[dict[str, Any]] = ()
    backward_flops: float = 2.0
    bytes: Callable[[Any], float] | None = None
    returns: tuple[str, ...] = ("out",)
    keep: Mapping[str, Any] = field(default_factory=dict)
    saved: Callable[[Any], dict[str, Any]] = lambda c: {}
    grads: Mapping[str, str] = field(default_factory=dict)
    updates: tuple[str, ...] = ()
    strided: tuple[str, ...] = ()
    bounds: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    invalid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    relative: tuple[str, ...] = ()
    floor: float = 1e-6
    unit: float = 0.0
    torch: Callable[[Any, Any], Callable[[], Any]] | None = None
    same_numbers: bool = True
    numpy: Callable[[Any], Callable[[], Any]] | None = None
    variant: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}.{self.variant}" if self.variant else self.name

    @property
    def forward(self) -> Callable[..., Any]:
        return getattr(ops, self.name)

    @property
    def backward(self) -> Callable[..., Any]:
        return getattr(ops, f"{self.name}_backward")

    @property
    def family(self) -> str:
        """File that holds the op in every layer: ``gemm`` for ``matmul``."""
        return self.forward.__module__.rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Case:
    """An op at given dimensions."""

    op: Op
    dims: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.op.label}[{','.join(self._words())}]"

    @property
    def shape(self) -> str:
        """The dimensions in words."""
        return " ".join(self._words())

    def _words(self) -> Iterator[str]:
        for name, value in self.dims.items():
            if isinstance(value, bool) or value is None:
                yield name if value else f"no-{name}"
            elif isinstance(value, tuple):
                yield f"{name}={'x'.join(map(str, value)) or '()'}"
            else:
                yield f"{name}={value}"

    def rng(self, seed: int) -> np.random.Generator:
        """The generator of this case: independent of every other case and of their order."""
        return np.random.default_rng([seed, zlib.crc32(self.id.encode())])

    def problem(self, seed: int = 0) -> Problem:
        return Problem(self.op, self.op.draw(self.rng(seed), **self.dims))


@dataclass(frozen=True)
class Problem:
    """An op with its arguments, ready to be called in the active backend."""

    op: Op
    args: dict[str, Any]

    def cast(self, dtype: type[np.floating]) -> Problem:
        """The same values in another float type (the reference computes in any)."""
        return Problem(self.op, {name: cast(value, dtype) for name, value in self.args.items()})

    def with_args(self, **args: Any) -> Problem:
        return replace(self, args={**self.args, **args})

    def forward_args(self, **more: Any) -> dict[str, Any]:
        return _bound(self.op.forward, {**self.args, **self.op.keep, **more})

    def backward_args(self, outputs: Mapping[str, Any], dout: Any, **more: Any) -> dict[str, Any]:
        known = {**self.args, **outputs, "dout": dout}
        saved = self.op.saved(SimpleNamespace(**known))
        return _bound(self.op.backward, {**known, **saved, **more})

    def forward(self, **more: Any) -> dict[str, Any]:
        """Outputs by name; arrays that the op changes in place are copied first."""
        given = {name: self.args[name] for name in self.op.updates}
        changed = {name: value.copy() for name, value in given.items() if value is not None}
        result = self.op.forward(**self.forward_args(**{**changed, **more}))
        return {**_named(self.op.returns, result), **changed}

    def backward(self, outputs: Mapping[str, Any], dout: Any, **more: Any) -> dict[str, Any]:
        """Gradients by name."""
        result = self.op.backward(**self.backward_args(outputs, dout, **more))
        return _named(tuple(self.op.grads.values()), result)

    def cotangent(self, rng: np.random.Generator, outputs: Mapping[str, Any]) -> Any:
        """A random cotangent of the first output, of its type and dtype."""
        out = outputs[self.op.returns[0]]
        if not isinstance(out, np.ndarray):
            return float(rng.standard_normal())
        return np.asarray(rng.standard_normal(out.shape), out.dtype)

    def namespace(self, outputs: Mapping[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**{**self.args, **outputs})

    # What the op costs at least; the floor of its time is the larger of the two at the limits.

    def flops(self, outputs: Mapping[str, Any], backward: bool = False) -> float:
        flops = self.op.flops(self.namespace(outputs))
        return flops * self.op.backward_flops if backward else flops

    def forward_bytes(self, outputs: Mapping[str, Any]) -> float:
        if self.op.bytes is not None:
            return self.op.bytes(self.namespace(outputs))
        return _nbytes(self.forward_args()) + _nbytes(outputs)

    def backward_bytes(self, outputs: Mapping[str, Any], dout: Any) -> float:
        args = self.backward_args(outputs, dout)
        inputs = {name: self.args[name] for name in self.op.grads}
        return _nbytes(args) + _nbytes(inputs)  # a gradient is as large as its input


def cast(value: Any, dtype: type[np.floating]) -> Any:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(dtype) if is_float else value


def _bound(function: Callable[..., Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in inspect.signature(function).parameters if name in known}


def _named(names: tuple[str, ...], result: Any) -> dict[str, Any]:
    if not names:
        return {}
    values = result if isinstance(result, tuple) else (result,)
    return dict(zip(names, values, strict=True))


def _nbytes(values: Mapping[str, Any]) -> int:
    return sum(v.nbytes for v in values.values() if isinstance(v, np.ndarray))


def call_forward(problem: Problem) -> Callable[[], Any]:
    """Forward with everything bound, for timing: arrays that it changes in place go on changing."""
    return partial(problem.op.forward, **problem.forward_args())


def call_backward(problem: Problem, outputs: Mapping[str, Any], dout: Any) -> Callable[[], Any]:
    return partial(problem.op.backward, **problem.backward_args(outputs, dout))
