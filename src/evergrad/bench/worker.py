"""A process for each contestant.

In one process they would share what they must not: Numba's threads turn on nested parallelism for
every user of the same OpenMP, after which attention in PyTorch takes thirty times as long. So each
one has a process of its own, with the same number of threads. Between its turns it is stopped: idle
threads of OpenBLAS spin for a tenth of a second, on the cores of whoever is next.

The child reads requests and writes answers, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import Any

import evergrad
from evergrad.bench import cases, machine
from evergrad.bench.measure import (
    Effort,
    Limits,
    StepEffort,
    measure_limits,
    round_trip,
    step_turn,
    turn,
)
from evergrad.bench.op import Case
from evergrad.bench.peers import BACKENDS, call_of, has_side, set_threads, step_of
from evergrad.bench.steps import INFERENCE, STEPS, Step, Work
from evergrad.bench.training import NOTHING

# What decides the number of threads in us, in OpenMP, in OpenBLAS, in MKL and in Numba.
VARIABLES = (
    "EVERGRAD_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Set on some machines to keep OpenBLAS portable: NumPy would be measured slower than it is. Or to
# keep Python from writing what it compiled: a package that runs from its sources would be compiled
# anew in every process, and an installed one was compiled by its installer.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")


class EndedEarlyError(ChildProcessError):
    """A contestant's process has crashed, or was killed; what it had to say it has said."""


#: A Ctrl-C is for the parent, which then ends its children: in a group of its own a child, and what
#: it starts in turn, is not told. When the parent is killed, the system ends the stopped ones.
_CHILD = (
    "import os, sys; os.setpgid(0, 0); from evergrad.bench.worker import main; main(sys.argv[1])"
)


class Worker:
    """The parent's side of a contestant's process."""

    def __init__(self, name: str, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in UNSET}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, **dict.fromkeys(VARIABLES, str(threads))},
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """What the method of `Contestant` of this name answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            print(json.dumps([request, arguments]), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            code = self.process.wait()
            why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise EndedEarlyError(f"the {self.name} process ended early: {why}") from error
        finally:
            self.process.send_signal(signal.SIGSTOP)  # nothing, where it has ended

    def turn(self, case: Case, backward: bool, effort: Effort) -> list[float]:
        return self.ask("turn", case=case.id, backward=backward, effort=asdict(effort))

    def step_turn(
        self, step: Step | Work, threads: Sequence[int], effort: StepEffort
    ) -> tuple[list[float], list[list[float]]]:
        """What every step gave, and the times for each number of threads."""
        return self.ask("step_turn", step=step.name, threads=threads, effort=asdict(effort))

    def limits(self) -> Limits:
        return Limits(**self.ask("limits"))

    def round_trip(self) -> float:
        """How far apart the cores are, as in `Limits`."""
        return self.ask("round_trip")

    def peak_bytes(self) -> int:
        """The most memory that the process has held so far."""
        return self.ask("peak_bytes")

    def peak_bytes_at_rest(self) -> int:
        """The same when all is imported and has run once, on next to nothing."""
        return self.ask("peak_bytes_at_rest")

    def blas(self) -> str:
        """Which matrix product NumPy calls there."""
        return self.ask("blas")

    def kill(self) -> None:
        """End it in the middle of what it does, with the programs that it has started."""
        with suppress(ProcessLookupError):  # there is no such group yet, or no more
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        with suppress(BrokenPipeError):
            self.process.communicate()  # no more requests: it ends


@contextmanager
def workers(names: Sequence[str], threads: int) -> Iterator[dict[str, Worker]]:
    """A process for each name, ended at the end."""
    with ExitStack() as stack:
        started: dict[str, Worker] = {}
        try:
            for name in names:
                started[name] = Worker(name, threads)
                stack.callback(started[name].close)
            yield started
        except BaseException:  # nobody waits for what they are at
            for worker in started.values():
                worker.kill()
            raise


class Contestant:
    """The child's side. It holds one call at a time: the arrays of the one before go first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases = {case.id: case for case in cases.benched()}
        self.current: tuple[Any, ...] = ()
        self.call: Any = None
        if name in BACKENDS:
            evergrad.use_backend(BACKENDS[name])

    def turn(self, case: str, backward: bool, effort: dict[str, Any]) -> list[float]:
        if self.current != (case, backward):
            self.call = None
            self.call = call_of(self.name, self.cases[case].problem(), backward)
            self.current = (case, backward)
        return turn(self.call, Effort(**effort))

    def step_turn(
        self, step: str, threads: list[int], effort: dict[str, Any]
    ) -> tuple[list[float], list[list[float]]]:
        if self.current != (step,):
            self.call = None
            self.call = step_of(self.name, STEPS.get(step) or INFERENCE[step])
            self.current = (step,)
        change = [lambda n=n: set_threads(self.name, n) for n in threads]
        return step_turn(self.call, change, StepEffort(**effort))

    def limits(self) -> dict[str, Any]:
        return asdict(measure_limits())

    def round_trip(self) -> float:
        return round_trip()

    def blas(self) -> str:
        return machine.blas()

    def peak_bytes(self) -> int:
        # Not ru_maxrss: a child's begins with that of its parent.
        with open("/proc/self/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    def peak_bytes_at_rest(self) -> int:
        if has_side(self.name, NOTHING):
            step_of(self.name, NOTHING)()
        return self.peak_bytes()


def main(name: str) -> None:
    contestant = Contestant(name)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        try:
            answer = getattr(contestant, request)(**arguments)
        except ImportError as error:  # of a package that the work needs: no more to tell
            sys.exit(f"{name}: {error}")
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # the parent was killed: there is nobody to complain to
            os._exit(1)
