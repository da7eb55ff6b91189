"""The runtime around the kernels: threads, forks, the pool, the environment, a light import."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import ops
from evergrad.bench.op import Case
from op_support import (
    BACKENDS,
    FAST,
    ISAS,
    assert_same_bits,
    each_case,
    exact_and_naive,
    python,
    run,
    succeeds,
    using,
)

native = pytest.mark.skipif("native" not in evergrad.available_backends(), reason="not built")
each_fast = pytest.mark.parametrize("backend", [each for each in FAST if each != "reference"])
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


USE = """
import os, signal, sys
import numpy as np, evergrad
from evergrad import ops
evergrad.use_backend(os.environ["BACKEND"])
evergrad.set_num_threads(2)
x = np.random.default_rng(0).standard_normal((300, 400), np.float32)
def use():
    out = ops.linear(ops.gelu(ops.softmax(x)), x)
    return ops.layer_norm(out, (300,)).tobytes()
wanted = use()
"""


@pytest.mark.parametrize("backend", evergrad.available_backends())
class TestFork:
    def test_after_use(self, backend: str) -> None:
        """The child computes the same and ends; so does the parent, after it."""
        code = USE + (
            "for _ in range(3):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        signal.alarm(30)\n"
            "        os._exit(0 if use() == wanted else 3)\n"
            "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
            "    assert use() == wanted\n"
        )
        succeeds(code, BACKEND=backend)

    def test_worker_processes(self, backend: str) -> None:
        """As a data loader forks."""
        code = USE + (
            "import multiprocessing\n"
            "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
            "    results = [pool.apply_async(use) for _ in range(4)]\n"
            "    assert all(result.get(60) == wanted for result in results)\n"
        )
        succeeds(code, BACKEND=backend)


ADD = """
float sum(int n) {
  float s = 0;
#pragma omp parallel for num_threads(2) reduction(+ : s)
  for (int i = 0; i < n; ++i) s += 1;
  return s;
}
"""
CHILD = """
child = os.fork()
if child == 0:
    signal.alarm(30)
    x = np.ones((300, 300), np.float32)
    os._exit(evergrad.get_num_threads() if (ops.matmul(x, x) == 300).all() else 99)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
IMPORTS = "import ctypes, os, signal, sys, numpy as np, evergrad; from evergrad import ops\n"


@native
class TestForkBeforeUse:
    """What matters is whether OpenMP's threads were there, not whose they were."""

    def test_threads_of_others(self, tmp_path: Path) -> None:
        """As PyTorch's, or Numba's: the child waited for them, and for ever."""
        compiler = os.environ.get("CC", "gcc")
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        library = tmp_path / "libadd.so"
        command = [compiler, "-xc", "-", "-fopenmp", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run(command, input=ADD, text=True, check=True)
        use = (
            f"add = ctypes.CDLL({str(library)!r}).sum\n"
            "add.restype = ctypes.c_float\n"
            "assert add(1000) == 1000\n"
        )
        settings = dict(EVERGRAD_NUM_THREADS="2", EVERGRAD_BACKEND="native")
        assert succeeds(IMPORTS + use + CHILD, **settings) == "1"

    def test_no_threads(self) -> None:
        """Whoever imports before he forks, a server say, keeps them all."""
        settings = dict(EVERGRAD_NUM_THREADS="2", EVERGRAD_BACKEND="native")
        assert succeeds(IMPORTS + CHILD, **settings) == "2"


@native
def test_fork_while_other_threads_compute() -> None:
    """Nobody's lock is copied locked. (The BLAS that the other backends use cannot promise it.)"""
    code = USE + (
        "import threading\n"
        "stop = threading.Event()\n"
        "def work():\n"
        "    while not stop.is_set(): use()\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "[t.start() for t in threads]\n"
        "for _ in range(10):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        signal.alarm(30)\n"
        "        os._exit(0 if use() == wanted else 3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "stop.set()\n"
        "[t.join() for t in threads]\n"
    )
    succeeds(code, BACKEND="native")


@each_fast
class TestPythonThreads:
    def test_reentrant(self, backend: str) -> None:
        """Several threads at once get the bits that one gets alone."""
        x, weight = normal(200, 300), normal(250, 300)
        query = normal(2, 60, 4, 16)

        def work() -> dict[str, Any]:
            out = ops.linear(x, weight, activation="gelu_tanh")
            attended, lse = ops.attention(query, query, query, is_causal=True, return_lse=True)
            dquery, _, _ = ops.attention_backward(
                attended, query, query, query, attended, lse, is_causal=True
            )
            return {"out": out, "soft": ops.softmax(out), "attended": attended, "dquery": dquery}

        results: list[dict[str, Any]] = []
        errors: list[BaseException] = []

        def repeat() -> None:
            try:
                for _ in range(10):
                    results.append(work())
            except BaseException as error:
                errors.append(error)

        with using(backend), evergrad.num_threads(2):
            wanted = work()
            threads = [threading.Thread(target=repeat) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not errors
        assert len(results) == 40
        for result in results:
            assert_same_bits(result, wanted)


@native
def test_how_far_the_second_worker_is() -> None:
    from evergrad import _native

    with evergrad.num_threads(1):
        assert _native.round_trip() == 0
    with evergrad.num_threads(2):
        answers = [_native.round_trip() for _ in range(20)]
    # In nanoseconds. It need not answer: its core may be busy, or there may be a single one.
    assert all(answer == 0 or 10 < answer < 1e6 for answer in answers)


@native
def test_one_object_may_set_the_threads_of_nested_blocks() -> None:
    before = evergrad.get_num_threads()
    threads = evergrad.num_threads(before + 1)
    with threads, threads:
        assert evergrad.get_num_threads() == before + 1
    assert evergrad.get_num_threads() == before


@native
def test_the_number_of_threads_changes_during_a_product() -> None:
    """A product has room for the workers it began with."""
    code = (
        "import threading, numpy as np, evergrad\n"
        "from evergrad import ops\n"
        "x = np.random.default_rng(0).standard_normal((2500, 2500), np.float32)\n"
        "evergrad.set_num_threads(1)\n"
        "wanted = ops.matmul(x, x).tobytes()\n"
        "stop = threading.Event()\n"
        "def change():\n"
        "    while not stop.wait(0.003):\n"
        "        evergrad.set_num_threads(16)\n"
        "        stop.wait(0.003)\n"
        "        evergrad.set_num_threads(1)\n"
        "thread = threading.Thread(target=change)\n"
        "thread.start()\n"
        "for _ in range(12):\n"
        "    assert ops.matmul(x, x).tobytes() == wanted\n"
        "stop.set()\n"
        "thread.join()\n"
    )
    succeeds(code)


@native
@pytest.mark.parametrize("op", [ops.softmax, ops.gelu, ops.grad_norm], ids=lambda op: op.__name__)
def test_gil_is_given_away(op: Any) -> None:
    """Another thread gets on while a kernel runs, though the interpreter itself never switches.

    (Numba's kernels keep the GIL: its thread pools need not allow two callers at once.)
    """
    x = normal(2_000_000)
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0)  # the only place where this thread lets go

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        with evergrad.use_backend("native"), evergrad.num_threads(1):
            before = ticks
            for _ in range(200):  # on a busy machine the other thread may come late
                op(x)
                if ticks > before:
                    break
            during = ticks - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        ticker.join()
    assert during > 0


@native
def test_daemon_threads_may_compute_when_the_program_ends() -> None:
    """They wait for its end: coming back from an op, they ended it by an abort."""
    code = (
        "import threading, time, numpy as np\n"
        "from evergrad import _native, ops\n"
        "x = np.ones((64, 4096), np.float32)\n"
        "def forever(use):\n"
        "    while True: use()\n"
        "for use in (lambda: ops.softmax(x), lambda: ops.linear(x, x), _native.round_trip):\n"
        "    threading.Thread(target=forever, args=(use,), daemon=True).start()\n"
        "time.sleep(0.05)\n"
        "print('at the end')\n"
    )
    assert succeeds(code, EVERGRAD_BACKEND="native") == "at the end"


class TestNumberOfThreads:
    def test_scoped(self) -> None:
        before = evergrad.get_num_threads()
        with evergrad.num_threads(before + 1):
            assert evergrad.get_num_threads() == before + 1
            with evergrad.num_threads(1):
                assert evergrad.get_num_threads() == 1
            assert evergrad.get_num_threads() == before + 1
        assert evergrad.get_num_threads() == before

    def test_restored_after_an_error(self) -> None:
        before = evergrad.get_num_threads()
        with pytest.raises(KeyError), evergrad.num_threads(1):
            raise KeyError
        assert evergrad.get_num_threads() == before

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
    def test_refused(self, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="n: expected a positive integer"):
            evergrad.set_num_threads(wrong)

    def test_absurd_numbers_work(self) -> None:
        x = normal(300, 1000)
        wanted = ops.gelu(x)
        with evergrad.num_threads(10**6):
            np.testing.assert_array_equal(ops.gelu(x), wanted)


@pytest.mark.skipif("numba" not in evergrad.available_backends(), reason="not installed")
class TestNumbaThreads:
    """Numba is imported late and keeps a number of its own for each thread of Python."""

    # How many of Numba's threads take part in a kernel, in this thread of Python and in another.
    SEEN = (
        "import threading, numba, numpy as np, evergrad\n"
        "from evergrad.backends.numba._kernel import kernel\n"
        "from numba import prange\n"
        "@kernel\n"
        "def which(x, ids):\n"
        "    for i in prange(x.size): ids[i] = numba.get_thread_id()\n"
        "def seen():\n"
        "    ids = np.zeros(1 << 16, np.int64)\n"
        "    which(np.zeros(1 << 16, np.float32), ids)\n"
        "    counts.append(len(set(ids.tolist())))\n"
        "counts = []\n"
        "seen()\n"
        "thread = threading.Thread(target=seen)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(evergrad.get_num_threads(), *counts)\n"
    )

    def test_environment(self) -> None:
        settings = dict(EVERGRAD_BACKEND="numba", NUMBA_NUM_THREADS="2")
        assert succeeds(self.SEEN, EVERGRAD_NUM_THREADS="1", **settings) == "1 1 1"
        assert succeeds(self.SEEN, EVERGRAD_NUM_THREADS="9", **settings) == "2 2 2"
        assert succeeds(self.SEEN, EVERGRAD_NUM_THREADS=None, **settings) == "2 2 2"

    def test_set_before_the_backend_is_used(self) -> None:
        code = "import evergrad; evergrad.set_num_threads(1); evergrad.use_backend('numba')\n"
        assert succeeds(code + self.SEEN, NUMBA_NUM_THREADS="2") == "1 1 1"

    def test_the_number_of_its_owner_is_left_alone(self) -> None:
        code = (
            "import numba, numpy as np, evergrad; numba.set_num_threads(1)\n"
            "evergrad.set_num_threads(2); evergrad.use_backend('numba')\n"
            "evergrad.ops.gelu(np.ones(1 << 16, np.float32))\n"
            "print(numba.get_num_threads())\n"
        )
        assert succeeds(code, NUMBA_NUM_THREADS="2") == "1"


@pytest.mark.parametrize("embedding", ["sys.argv = []", "del sys.argv"])
def test_imports_where_python_is_embedded(embedding: str) -> None:
    code = f"import sys; {embedding}\nimport evergrad; print(evergrad.get_num_threads() > 0)"
    assert succeeds(code) == "True"


THREADS = "import evergrad; print(evergrad.get_num_threads())"


@native
class TestEnvironment:
    @pytest.mark.parametrize(
        ("ours", "omp", "wanted"),
        [
            ("3", None, 3),
            (None, "3", 3),
            ("3", "1", 3),
            ("1", "3", 1),
            (None, "3,2", 3),
            (None, "4294967296", 1024),
        ],
    )
    def test_threads(self, ours: str | None, omp: str | None, wanted: int) -> None:
        assert int(succeeds(THREADS, EVERGRAD_NUM_THREADS=ours, OMP_NUM_THREADS=omp)) == wanted

    def test_default_is_what_the_process_may_use(self) -> None:
        default = int(succeeds(THREADS, EVERGRAD_NUM_THREADS=None, OMP_NUM_THREADS=None))
        assert 1 <= default <= len(os.sched_getaffinity(0))
        code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + THREADS
        assert succeeds(code, EVERGRAD_NUM_THREADS=None, OMP_NUM_THREADS=None) == "1"

    @pytest.mark.parametrize("wrong", ["0", "-2", "two", "1.5"])
    def test_wrong_number_is_named(self, wrong: str) -> None:
        child = python(THREADS, EVERGRAD_NUM_THREADS=wrong)
        assert child.returncode != 0
        assert "EVERGRAD_NUM_THREADS" in child.stderr
        assert repr(wrong) in child.stderr

    @pytest.mark.parametrize("isa", ISAS)
    def test_isa(self, isa: str) -> None:
        code = "import evergrad; print(evergrad.show_config()['isa'])"
        assert succeeds(code, EVERGRAD_ISA=isa) == isa

    @pytest.mark.parametrize("isa", sorted({"avx2", "avx512", "neon", "sse9"} - set(ISAS)))
    def test_isa_that_the_cpu_lacks(self, isa: str) -> None:
        child = python("import evergrad", EVERGRAD_ISA=isa)
        assert child.returncode > 0, "an error, not a signal"
        assert "EVERGRAD_ISA" in child.stderr
        assert repr(isa) in child.stderr
        assert all(name in child.stderr for name in ISAS), "what there is instead"

    def test_config_notes_a_capped_isa(self) -> None:
        code = "import evergrad; print(evergrad.show_config()['notes'])"
        assert ISAS[-1] in succeeds(code, EVERGRAD_ISA="scalar")


@native
class TestThreadpoolctl:
    def test_limits_are_respected(self) -> None:
        threadpoolctl = pytest.importorskip("threadpoolctl")
        with evergrad.use_backend("native"), evergrad.num_threads(2):
            with threadpoolctl.threadpool_limits(1, user_api="openmp"):
                assert evergrad.get_num_threads() == 1
            assert evergrad.get_num_threads() == 2

    def test_our_runtime_is_listed(self) -> None:
        threadpoolctl = pytest.importorskip("threadpoolctl")
        assert any(each["user_api"] == "openmp" for each in threadpoolctl.threadpool_info())


@native
class TestPool:
    @pytest.fixture(autouse=True)
    def _native_backend(self) -> Any:
        with evergrad.use_backend("native"):
            yield

    def test_memory_is_recycled(self) -> None:
        x = normal(500, 700)
        ops.relu(x)
        addresses = {ops.relu(x).ctypes.data for _ in range(10)}
        assert len(addresses) == 1

    def test_empty_is_aligned_and_writable(self) -> None:
        for shape in (1, (3, 5), (1000, 77), ()):
            buffer = ops.empty(shape)
            assert buffer.dtype == np.float32
            assert buffer.flags.c_contiguous
            assert buffer.flags.writeable
            assert buffer.size == 0 or buffer.ctypes.data % 64 == 0
            buffer.fill(1)

    def test_views_keep_it_alive(self) -> None:
        """Whoever still sees a buffer, it is not handed out again."""
        x = np.ones((64, 1000), np.float32)
        views = [ops.relu(x)[i % 64 :, ::7].T for i in range(20)]
        for _ in range(50):
            ops.relu(np.full_like(x, 2))
        assert all((view == 1).all() for view in views)
        kept = memoryview(ops.relu(x))
        for _ in range(10):
            ops.relu(np.full_like(x, 2))
        assert (np.asarray(kept) == 1).all()

    def test_arrays_outlive_everything(self) -> None:
        """Freed at interpreter exit, after the module that made them."""
        code = (
            "import sys, numpy as np, evergrad\n"
            "sys.last = [evergrad.ops.relu(np.ones(n, np.float32)) for n in (1, 1000, 10**6)]\n"
        )
        succeeds(code)

    def test_goes_back_where_python_has_no_memory_for_the_array(self) -> None:
        from evergrad import _native

        python_s = pytest.importorskip("_testcapi")
        before = _native.pool_stats()["live_bytes"]
        refused = 0
        for nth in range(20):  # of Python's allocations, the one that fails
            python_s.set_nomemory(nth, nth + 1)
            try:
                ops.empty((2, 3))
            except MemoryError:
                refused += 1
            finally:
                python_s.remove_mem_hooks()
            assert _native.pool_stats()["live_bytes"] == before
        assert 0 < refused < 20

    def test_trim(self) -> None:
        from evergrad import _native

        ops.empty(1000)
        assert _native.pool_stats()["cached_bytes"] >= 4000
        ops.trim()
        assert _native.pool_stats()["cached_bytes"] == 0

    def test_in_a_container(self, tmp_path: Path) -> None:
        """It keeps a quarter of what its control group may have, not of the machine's memory."""
        (tmp_path / "memory.max").write_text(f"{256 << 20}\n")
        (tmp_path / "cpu.max").write_text("100000 100000\n")
        enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        mount = 'mount --bind "$0" /sys/fs/cgroup && exec "$@"'
        if (
            shutil.which("unshare") is None
            or subprocess.run([*enter, mount, tmp_path, "true"]).returncode
        ):
            pytest.skip("needs to mount what looks like a control group's files")
        code = (
            "import evergrad\n"
            "from evergrad import _native, ops\n"
            "buffers = [ops.empty(4 << 20) for _ in range(8)]\n"
            "del buffers\n"
            "print(_native.pool_stats()['cached_bytes'] >> 20, evergrad.get_num_threads())\n"
        )
        settings = dict(EVERGRAD_BACKEND="native", EVERGRAD_NUM_THREADS="", OMP_NUM_THREADS="")
        command = [*enter, mount, tmp_path, sys.executable, "-c", code]
        seen = subprocess.check_output(command, text=True, env={**os.environ, **settings})
        assert seen.split() == ["64", "1"]

    def test_freed_in_another_thread(self) -> None:
        x = normal(300, 300)
        wanted = ops.relu(x)
        made: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: made.extend(ops.relu(x) for _ in range(50)))
        thread.start()
        thread.join()
        assert all((each == wanted).all() for each in made)
        made.clear()
        np.testing.assert_array_equal(ops.relu(x), wanted)

    @each_case(lambda case: case.dims is case.op.large)
    def test_no_page_faults_in_the_steady_state(self, case: Case) -> None:
        """Calls of the same size find their outputs and scratch in the pool.

        A thread takes its scratch from the system when it first overlaps with another one, which
        may come late on a busy machine: so the first ten calls without faults are waited for.
        """
        problem, dout, *_ = exact_and_naive(case)
        gc.collect()

        def faults_of_ten_calls() -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                run(problem, dout)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        faults = [faults_of_ten_calls()]
        while faults[-1] > 2 and len(faults) < 12:
            faults.append(faults_of_ten_calls())
        assert faults[-1] <= 2, f"faults of ten calls: {faults}"


class TestImport:
    def test_is_light(self) -> None:
        loaded = succeeds(
            "import sys, evergrad; print(*sys.modules)", EVERGRAD_BACKEND=None
        ).split()
        heavy = {"numba", "torch", "matplotlib", "scipy", "typer", "rich", "tokenizers"}
        assert not heavy & set(loaded)

    def test_every_isa_was_tested(self) -> None:
        assert {f"native:{isa}" for isa in ISAS} <= set(BACKENDS)


def test_packages_offer_the_names_that_they_say_they_do():
    """Names that are loaded when they are first asked for, listed a second time for readers."""
    for package in (evergrad, evergrad.models):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            package.nonsense  # noqa: B018
    code = """
import sys, evergrad, evergrad.models
from evergrad.models import Llama
files = [f"evergrad.models.{name}" for name in ("t5", "bert", "explanation")]
assert evergrad.models.prompting.__name__ == "evergrad.models.prompting"
loaded = [name for name in files if name in sys.modules]
assert not loaded, loaded
assert evergrad.models.explain.__name__ == "explain"
"""
    succeeds(code)
