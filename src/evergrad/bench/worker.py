"""A process for each contestant.

In one process they would share what they must not: Numba's threads turn on nested parallelism for
every user of the same OpenMP, after which attention in PyTorch takes thirty times as long. So each
one has a process of its own, with the same number of threads. Between its turns it is stopped: idle
threads of OpenBLAS spin for a tenth of a second, on the cores of whoever is next.

``python -m evergrad.bench.worker NAME`` reads requests and writes answers, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import evergrad
from evergrad.bench import cases
from evergrad.bench.measure import Effort, Limits, measure_limits, turn
from evergrad.bench.op import Case
from evergrad.bench.peers import BACKENDS, call_of

# What decides the number of threads in us, in OpenMP, in OpenBLAS, in MKL and in Numba.
VARIABLES = (
    "EVERGRAD_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Set on some machines to keep OpenBLAS portable; NumPy would be measured slower than it is.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Worker:
    """The parent's side of a contestant's process."""

    def __init__(self, name: str, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in UNSET}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "evergrad.bench.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **dict.fromkeys(VARIABLES, str(threads))},
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError(f"the {self.name} process ended early (see above)") from error
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def turn(self, case: Case, backward: bool, effort: Effort) -> list[float]:
        return self.ask(case=case.id, backward=backward, effort=asdict(effort))

    def limits(self) -> Limits:
        return Limits(**self.ask())

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.communicate()  # no more requests: it ends


@contextmanager
def workers(names: Sequence[str], threads: int) -> Iterator[dict[str, Worker]]:
    """A process for each name, ended at the end."""
    with ExitStack() as stack:
        started = {}
        for name in names:
            started[name] = Worker(name, threads)
            stack.callback(started[name].close)
        yield started


def main(name: str) -> None:
    """The child's side. A request without a case asks for the limits."""
    if name in BACKENDS:
        evergrad.use_backend(BACKENDS[name])
    known = {case.id: case for case in cases.benched()}
    current, call = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if not request:
            answer: Any = asdict(measure_limits())
        else:
            wanted = (request["case"], request["backward"])
            if wanted != current:
                call = None  # the arrays of the case before, before new ones are drawn
                current, call = wanted, call_of(name, known[wanted[0]].problem(), wanted[1])
            assert call is not None
            answer = turn(call, Effort(**request["effort"]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
