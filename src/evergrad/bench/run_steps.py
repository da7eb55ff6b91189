"""Steps in turns: time, useful arithmetic, memory, scaling with threads, agreement of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergrad.bench.measure import FULL_STEPS, Limits, StepEffort
from evergrad.bench.peers import has_side
from evergrad.bench.run import Timing
from evergrad.bench.steps import Step, Work
from evergrad.bench.worker import EndedEarlyError, Worker, workers

#: So many losses are compared.
COMPARED = 20


@dataclass(frozen=True)
class Course:
    """How one contestant fared."""

    timing: Timing  # with all threads
    one_thread: Timing | None
    given: list[float]  # what the steps gave: losses
    peak_bytes: int  # of the whole process
    rest_bytes: int  # of that, what was there before: imports and what they set up

    @property
    def own_bytes(self) -> int:
        return self.peak_bytes - self.rest_bytes

    @property
    def given_median(self) -> float:
        return float(np.median(self.given))

    @property
    def scaling(self) -> float | None:
        """How many times faster than with one thread."""
        return None if self.one_thread is None else self.one_thread.median / self.timing.median


@dataclass(frozen=True)
class StepResult:
    """One step in every contestant; the first one is ours."""

    name: str
    shape: str
    flops: float | None
    limits: Limits | None
    courses: Mapping[str, Course]
    ended_early: tuple[str, ...] = ()  # what became of others, which are not among the courses
    #: Seconds of a cache line's way to the second core and back, the median of our turns.
    round_trip: float = 0.0

    @property
    def ours(self) -> str:
        return next(iter(self.courses))

    def mfu(self, name: str) -> float | None:
        """Useful operations a second over the peak of fused multiply-adds."""
        if self.limits is None or self.flops is None:
            return None
        return self.flops / self.limits.flops / self.courses[name].timing.median

    def speedup(self, peer: str) -> float | None:
        if peer not in self.courses:
            return None
        return self.courses[peer].timing.median / self.courses[self.ours].timing.median

    def memory(self, peer: str) -> tuple[float, float] | None:
        """Our peak over the peer's: of the whole processes, and without what was there before."""
        if peer not in self.courses:
            return None
        ours, other = self.courses[self.ours], self.courses[peer]
        return ours.peak_bytes / other.peak_bytes, ours.own_bytes / max(other.own_bytes, 1)

    def difference(self, peer: str) -> tuple[float, int] | None:
        """Largest relative difference of the numbers given, and of how many."""
        if peer not in self.courses:
            return None
        pairs = zip(self.courses[self.ours].given, self.courses[peer].given, strict=False)
        compared = np.array(list(pairs)[:COMPARED])
        return float((np.abs(np.diff(compared)[:, 0] / compared[:, 1])).max()), len(compared)

    def as_dict(self) -> dict[str, Any]:
        peers = [name for name in self.courses if name != self.ours]
        return {
            "step": self.name,
            "shape": self.shape,
            "flops": self.flops,
            "round_trip": self.round_trip or None,
            "contestants": {
                name: {
                    "median": course.timing.median,
                    "min": course.timing.minimum,
                    "mfu": self.mfu(name),
                    "scaling": course.scaling,
                    "peak_bytes": course.peak_bytes,
                    "peak_bytes_without_imports": course.own_bytes,
                    "losses": course.given[:COMPARED],
                }
                for name, course in self.courses.items()
            },
            "speedup": {name: self.speedup(name) for name in peers},
            "memory": {name: self.memory(name) for name in peers},
            "largest_difference": {name: self.difference(name) for name in peers},
            "left_out": list(self.ended_early),
        }


def measure_step(
    step: Step | Work,
    names: list[str],
    threads: int,
    limits: Limits | None,
    effort: StepEffort = FULL_STEPS,
) -> StepResult:
    """Time a step in a fresh process for each contestant: so the peak of memory is its own.

    A peer whose process crashes is left out; we are not.
    """
    names = [name for name in names if has_side(name, step)]
    counts = [threads, 1] if threads > 1 and effort.one_thread else [threads]
    given: dict[str, list[float]] = {name: [] for name in names}
    times: dict[str, list[list[float]]] = {name: [[] for _ in counts] for name in names}
    ended: dict[str, str] = {}
    trips: list[float] = []

    def asked(name: str, request: Callable[[Worker], Any]) -> Any:
        try:
            return request(contestants[name])
        except EndedEarlyError as error:
            if name == names[0]:
                raise
            ended[name] = str(error)

    with workers(names, threads) as contestants:
        rest = {name: asked(name, Worker.peak_bytes_at_rest) for name in names}
        order = list(names)
        for _ in range(effort.rounds):
            for name in [name for name in order if name not in ended]:
                if turn := asked(name, lambda worker: worker.step_turn(step, counts, effort)):
                    given[name] += turn[0]
                    for index, more in enumerate(turn[1]):
                        times[name][index] += more
                    if name == names[0] and limits is not None:
                        trips.append(contestants[name].round_trip())
            order = order[1:] + order[:1]
        peaks = {name: asked(name, Worker.peak_bytes) for name in names if name not in ended}
        names = [name for name in names if name not in ended]
    courses = {}
    for name in names:
        timings = [Timing.of(np.array(samples)) for samples in times[name]]
        one = timings[1] if len(timings) > 1 else None
        courses[name] = Course(timings[0], one, given[name], peaks[name], rest[name])
    flops = getattr(step, "flops", None)
    return StepResult(
        step.name, step.shape, flops, limits, courses, tuple(ended.values()),
        float(np.median(trips)) if trips else 0.0,
    )  # fmt: skip
