"""From cases to results: every op forward and backward, against the limits and the peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from evergrad.bench.measure import FULL, Effort, Limits, take_turns
from evergrad.bench.op import Case
from evergrad.bench.peers import OTHERS, can_compute
from evergrad.bench.worker import Worker


@dataclass(frozen=True)
class Timing:
    """Seconds for one call."""

    median: float
    minimum: float

    @classmethod
    def of(cls, times: np.ndarray) -> Timing:
        return cls(float(np.median(times)), float(np.min(times)))


@dataclass(frozen=True)
class Result:
    """One call, forward or backward, in every contestant that has it; the first one is ours."""

    family: str
    op: str
    case: str
    dims: Mapping[str, Any]
    backward: bool
    flops: float
    bytes: float
    limits: Limits | None
    timings: Mapping[str, Timing]

    @property
    def ours(self) -> str:
        return next(iter(self.timings))

    @property
    def name(self) -> str:
        return f"{self.op}_backward" if self.backward else self.op

    def share(self, name: str) -> float | None:
        """The least time that the limits allow, over the time taken: 1 is the limit."""
        if self.limits is None:
            return None
        return self.limits.floor(self.flops, self.bytes) / self.timings[name].median

    @property
    def bound(self) -> str | None:
        """Which limit is the nearer one."""
        if self.limits is None:
            return None
        computing, moving = self.flops / self.limits.flops, self.bytes / self.limits.bandwidth
        return "compute" if computing > moving else "memory"

    def speedup(self, peer: str) -> float | None:
        """How many times faster than the peer we are."""
        if peer not in self.timings:
            return None
        return self.timings[peer].median / self.timings[self.ours].median

    @property
    def best(self) -> float | None:
        """How many times faster than the fastest of the others we are."""
        others = [peer for peer in OTHERS if peer != self.ours]  # NumPy, where there is no other
        ratios = [ratio for peer in others if (ratio := self.speedup(peer)) is not None]
        return min(ratios, default=None)

    def as_dict(self) -> dict[str, Any]:
        return {
            "op": self.name,
            "case": self.case,
            "flops": self.flops,
            "bytes": self.bytes,
            "bound": self.bound,
            "seconds": {n: {"median": t.median, "min": t.minimum} for n, t in self.timings.items()},
            "share_of_limit": {n: self.share(n) for n in self.timings},
            "speedup": {n: self.speedup(n) for n in self.timings if n != self.ours},
            "speedup_over_best": self.best,
        }


def directions(case: Case) -> tuple[bool, ...]:
    """Forward, and backward where the op has one and the case asks for it."""
    both = case.op.grads and case.dims not in case.op.bench_forward
    return (False, True) if both else (False,)


def cost(case: Case, backward: bool) -> dict[str, float]:
    """Floating-point operations and bytes that the call needs at least."""
    problem = case.problem()
    outputs = problem.forward()
    if not backward:
        moved = problem.forward_bytes(outputs)
    else:
        dout = problem.cotangent(np.random.default_rng(0), outputs)
        moved = problem.backward_bytes(outputs, dout)
    return {"flops": problem.flops(outputs, backward), "bytes": moved}


def measure(
    case: Case,
    backward: bool,
    contestants: Mapping[str, Worker],
    limits: Limits | None,
    effort: Effort = FULL,
) -> Result:
    """Time one call in each contestant's process, in turns."""
    problem = case.problem()
    turns = {
        name: partial(worker.turn, case, backward, effort)
        for name, worker in contestants.items()
        if can_compute(name, problem)
    }
    times = take_turns(turns, effort.rounds, effort.patience)
    timings = {name: Timing.of(samples) for name, samples in times.items()}
    return result_of(case, backward, limits, timings)


def result_of(
    case: Case, backward: bool, limits: Limits | None, timings: Mapping[str, Timing]
) -> Result:
    """Times with what they are times of."""
    return Result(
        family=case.op.family,
        op=case.op.label,
        case=case.shape,
        dims=case.dims,
        backward=backward,
        **cost(case, backward),
        limits=limits,
        timings=timings,
    )
