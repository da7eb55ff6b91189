"""Every op of the table, forward and backward: pytest-benchmark times ours while peers take turns.

Between rounds of ours, outside its clock, every peer has its turn: A B C A B C.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from evergrad.bench import cases
from evergrad.bench.measure import FULL, Effort, Limits, turn
from evergrad.bench.op import Case
from evergrad.bench.peers import call_of, can_compute, installed
from evergrad.bench.run import Result, Timing, directions, result_of
from evergrad.bench.worker import Worker

CALLS = [(case, backward) for case in cases.benched() for backward in directions(case)]
IDS = [f"{case.id}{'-backward' * backward}" for case, backward in CALLS]
WARM = Effort(rounds=1, settle=FULL.settle, seconds=0)
CALLS_IN_A_ROW = 5


@pytest.mark.parametrize(("case", "backward"), CALLS, ids=IDS)
def test_op(
    benchmark: BenchmarkFixture,
    case: Case,
    backward: bool,
    limits: Limits | None,
    peers: dict[str, Worker],
    results: list[Result],
) -> None:
    ours = installed()[0]
    problem = case.problem()
    call = call_of(ours, problem, backward)
    times: dict[str, list[float]] = {name: [] for name in peers if can_compute(name, problem)}

    order = itertools.count()

    def others_have_their_turn() -> None:
        if next(order) % CALLS_IN_A_ROW:
            return
        for name, samples in times.items():
            samples += peers[name].turn(case, backward, FULL)
        turn(call, WARM)

    benchmark.group = case.op.label
    rounds = FULL.rounds * CALLS_IN_A_ROW
    benchmark.pedantic(call, setup=others_have_their_turn, rounds=rounds, iterations=1)
    timings = {ours: Timing(benchmark.stats.stats.median, benchmark.stats.stats.min)}
    timings |= {name: Timing.of(np.array(samples)) for name, samples in times.items()}
    result = result_of(case, backward, limits, timings)
    benchmark.extra_info.update(result.as_dict())
    results.append(result)
