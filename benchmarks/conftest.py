"""The peers' processes, the limits of the machine, and a table at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.console import Console

import evergrad
from evergrad.bench import report
from evergrad.bench.measure import Limits, measure_limits
from evergrad.bench.peers import PEERS, installed
from evergrad.bench.run import Result
from evergrad.bench.worker import Worker, workers

RESULTS = pytest.StashKey[list[Result]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


@pytest.fixture(scope="session")
def limits() -> Limits | None:
    """Measured in this very run."""
    return measure_limits() if installed()[0] == "native" else None


@pytest.fixture(scope="session")
def peers() -> Iterator[dict[str, Worker]]:
    """With as many threads as we have: ``EVERGRAD_NUM_THREADS`` decides."""
    with workers(installed()[1:], evergrad.get_num_threads()) as started:
        yield started


@pytest.fixture
def results(request: pytest.FixtureRequest) -> list[Result]:
    return request.config.stash[RESULTS]


def pytest_terminal_summary(config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if results:
        ours, *others = installed()
        others = [peer for peer in PEERS if peer in others]
        title = report.headline(ours, results[0].limits, evergrad.get_num_threads())
        Console(width=165).print(report.op_table(results, title, others).rich())
