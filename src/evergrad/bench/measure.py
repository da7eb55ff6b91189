"""Timing: the limits of the machine, and calls interleaved A B A B.

A time by itself says little on a shared machine. What is reported is a ratio: to the limits, which
are measured in the same run, and to peers, which take turns with the call under test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import evergrad


@dataclass(frozen=True)
class Limits:
    """What this machine can do at most with this number of threads."""

    threads: int
    flops: float  # per second: fused multiply-adds from registers
    bandwidth: float  # bytes per second: reading memory
    #: Seconds of a cache line's way to a second core and back; 0 where none works for us, or
    #: answers. Tells whether they share a cache as the run begins: a hypervisor moves them.
    round_trip: float = 0.0

    def floor(self, flops: float, moved: float) -> float:
        """The least time in seconds for this much arithmetic and memory traffic, overlapped."""
        return max(flops / self.flops, moved / self.bandwidth)


def round_trip() -> float:
    """The median of some round trips, in seconds; 0 where there is no second worker, or none
    answers."""
    from evergrad import _native

    answered = [trip for _ in range(20) if (trip := _native.round_trip())]
    return 1e-9 * float(np.median(answered)) if answered else 0.0


def measure_limits() -> Limits:
    """Limits at the current number of threads; an ImportError without the native module."""
    from evergrad import _native

    seconds = 0.3
    return Limits(
        threads=evergrad.get_num_threads(),
        flops=1e9 * _native.measure_fma_peak(seconds),
        bandwidth=1e9 * _native.measure_bandwidth(seconds),
        round_trip=round_trip(),
    )


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of turns, and in each turn seconds to settle and to count.

    Whose counted calls have taken `patience` seconds in all is not called again.
    """

    rounds: int
    settle: float
    seconds: float
    patience: float = 2.0


FULL = Effort(rounds=5, settle=0.03, seconds=0.03)
QUICK = Effort(rounds=2, settle=0.02, seconds=0.01)


@dataclass(frozen=True)
class StepEffort:
    """How long to measure steps, which take from milliseconds to seconds: rounds of turns, and in
    each turn one step to settle, then so many and so many seconds' worth for each number of
    threads."""

    rounds: int
    most_threads: int
    one_thread: int
    seconds: float


FULL_STEPS = StepEffort(rounds=5, most_threads=2, one_thread=1, seconds=0.4)
QUICK_STEPS = StepEffort(rounds=2, most_threads=2, one_thread=1, seconds=0.1)


def step_turn(
    step: Callable[[], float], threads: Sequence[Callable[[], None]], effort: StepEffort
) -> tuple[list[float], list[list[float]]]:
    """What every step gave, and the times for each number of threads, which `threads` set.

    The first number of threads is that of the comparison; the first step settles, as in `turn`.
    """
    clock = time.perf_counter
    given: list[float] = []
    times: list[list[float]] = []
    for index, change in enumerate(threads):
        change()
        if index == 0:
            given.append(step())
        least = effort.one_thread if index else effort.most_threads
        taken: list[float] = []
        while len(taken) < least or sum(taken) < effort.seconds:
            start = clock()
            given.append(step())
            taken.append(clock() - start)
        times.append(taken)
    threads[0]()
    return given, times


def turn(call: Callable[[], object], effort: Effort) -> list[float]:
    """Times of single calls, after calls that are not counted.

    The calls before the clock starts bring pages and caches back, and give the threads of whoever
    had the turn before the time to stop spinning: they would take cores away.
    """
    clock = time.perf_counter
    times: list[float] = []
    start = clock()
    call()
    once = clock() - start
    while clock() - start < effort.settle:
        call()
    # One sample takes at least 20 us, so that reading the clock does not count.
    repeats = max(1, round(20e-6 / max(once, 1e-7)))
    start = now = clock()
    while not times or now - start < effort.seconds:
        before = now
        for _ in range(repeats):
            call()
        now = clock()
        times.append((now - before) / repeats)
    return times


def take_turns(
    contestants: Mapping[str, Callable[[], list[float]]],
    rounds: int,
    patience: float = math.inf,
) -> dict[str, np.ndarray]:
    """Times of each contestant, A B C, B C A, ...: no one always follows the same other one.

    Whose times add up to `patience` seconds has no further turn. What the first turn takes to
    make the arguments does not count: for the largest ones it is longer than all calls together.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for _ in range(rounds):
        for name in names:
            if sum(times[name]) < patience:
                times[name] += contestants[name]()
        names = names[1:] + names[:1]
    return {name: np.array(samples) for name, samples in times.items()}
