"""The registry: which implementation each op resolved to, and the switches around it.

``active`` holds one attribute per op, resolved once when a backend is chosen, so that a call pays
for a single attribute look-up. The order of preference is native, numba, reference; the environment
variable ``EVERGRAD_BACKEND`` names one explicitly.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from . import _strings, _threads, reference

# Threads that wait for work spin for a moment and then sleep: libgomp's own default is to spin for
# milliseconds, which starves everybody on a busy machine. It reads the environment once, when it is
# loaded with the native module; whoever set the variable is left alone, and children do not see it.
_spin = None if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ else "20000"
if _spin is not None:
    os.environ["GOMP_SPINCOUNT"] = _spin
try:
    from .. import _native
except ImportError as error:
    # A broken build must not hide behind a slow backend: show_config() repeats this reason.
    _native = None  # type: ignore[assignment]
    _native_error: str | None = str(error)
    if importlib.util.find_spec(f"{__name__.rpartition('.')[0]}._native") is None:
        # Python takes a module that is not there for a circular import, and says so.
        _native_error = f"no compiled module for {sys.implementation.cache_tag} is installed"
else:
    _native_error = None
finally:
    if _spin is not None:
        os.environ.pop("GOMP_SPINCOUNT", None)

__all__ = [
    "active",
    "available_backends",
    "get_num_threads",
    "native_isa",
    "num_threads",
    "set_num_threads",
    "show_config",
    "use_backend",
]

#: Every op that a backend provides: the reference is the specification. A backend that lacks one
#: falls back to the reference for it, and ``show_config`` says so.
OPS = tuple(reference.__all__)

#: As many threads as a process can be given.
MOST_THREADS = 1024
_NAMES = ("native", "numba", "reference")


class _Active:
    """The resolved backend: ``name``, ``float64`` (whether it takes it), the pool, the ops."""

    name: str
    float64: bool
    empty: Callable[[int | tuple[int, ...]], np.ndarray]
    zero_: Callable[[np.ndarray], None]
    pool_trim: Callable[[], None]
    apart: Callable[..., bool]
    plain: Callable[..., bool]
    rowwise: Callable[..., bool]
    multiplies: Callable[[Any, Any, Any], bool]
    affine: Callable[[Any, Any, Any, Any, Any], bool]
    within: Callable[[Any, int], bool]
    rising: Callable[[Any, int | None], bool]
    Strings: Any  # a class
    prefixed_strings: Callable[[Any, int, int], tuple[Any, int]]
    decoder: Any  # the native backend's blocks in one call, or None
    resolved: dict[str, str]

    def __getattr__(self, op: str) -> Any:  # only reached before the first _activate
        raise AttributeError(f"no backend resolved op {op!r}")


active = _Active()


def _empty(shape: int | tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.float32)


def _zero(x: np.ndarray) -> None:
    x.fill(0)


def _keeps_nothing() -> None:
    pass


def _apart(x: np.ndarray, *others: np.ndarray | None) -> bool:
    """Whether the memory that x spans meets that of no other array (or None)."""
    return not any(other is not None and np.may_share_memory(x, other) for other in others)


def _never(*args: Any) -> bool:
    """No short cut through the checks: each is made on its own."""
    return False


#: What the native module helps with beside the ops, and what other backends do instead.
_HELPERS: dict[str, Callable[..., Any]] = {
    "empty": _empty,
    "zero_": _zero,
    "pool_trim": _keeps_nothing,
    "apart": _apart,
    "plain": _never,
    "rowwise": _never,
    "multiplies": _never,
    "affine": _never,
    "within": _never,
    "rising": _never,
    "Strings": _strings.Strings,
    "prefixed_strings": _strings.prefixed_strings,
}


def _load(name: str) -> ModuleType:
    if name == "native":
        if _native is None:
            raise ImportError(f"the native backend is not available: {_native_error}")
        return _native
    return importlib.import_module(f".{name}", __name__)


def _activate(name: str) -> None:
    if name not in _NAMES:
        raise ValueError(f"backend: expected one of {', '.join(_NAMES)}, got {name!r}")
    backend = _load(name)
    resolved = {op: name if hasattr(backend, op) else "reference" for op in OPS}
    for op, source in resolved.items():
        setattr(active, op, getattr(backend if source == name else reference, op))
    active.name = name
    active.float64 = name == "reference"
    for helper, otherwise in _HELPERS.items():
        setattr(active, helper, getattr(_native, helper) if name == "native" else otherwise)
    active.decoder = _native.Decoder if name == "native" else None
    active.resolved = resolved


class use_backend:
    """Switch the backend of every op, at once or for the length of a ``with`` block.

    The switch is process wide: it is meant for tests, comparisons and float64 work, not for
    choosing per thread.

    Parameters
    ----------
    name : {"native", "numba", "reference"}

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        When the backend cannot be loaded (native not built, Numba not installed).

    Examples
    --------
    >>> import numpy as np, evergrad
    >>> with evergrad.use_backend("reference"):
    ...     evergrad.ops.softmax(np.zeros(2)).dtype
    dtype('float64')
    """

    def __init__(self, name: str) -> None:
        self._previous = active.name
        _activate(name)

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _activate(self._previous)


def available_backends() -> list[str]:
    """The backends that can be chosen here, fastest first.

    Examples
    --------
    >>> import evergrad
    >>> "reference" in evergrad.available_backends()
    True
    """
    names = ["native"] if _native is not None else []
    if importlib.util.find_spec("numba") is not None:
        names.append("numba")
    return [*names, "reference"]


def get_num_threads() -> int:
    """Threads that the next op of the calling thread may use.

    Examples
    --------
    >>> import evergrad
    >>> evergrad.get_num_threads() >= 1
    True
    """
    if active.name == "numba":
        count: int = importlib.import_module(".numba._kernel", __name__).get_num_threads()
        return count
    return _native.get_num_threads() if _native is not None else 1


def native_isa() -> str:
    """The ISA whose kernels the native backend runs."""
    return str(_native.get_isa())


def set_num_threads(n: int) -> None:
    """Set the number of threads for the whole process. Results do not depend on it, bit for bit.

    Parameters
    ----------
    n : int
        At least 1. It may exceed the number of cores.

    Raises
    ------
    ValueError
        When ``n`` is not a positive integer.

    Examples
    --------
    >>> import evergrad
    >>> before = evergrad.get_num_threads()
    >>> evergrad.set_num_threads(before)
    """
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n: expected a positive integer, got {n!r}")
    _threads.wanted = int(n)
    if _native is not None:
        _native.set_num_threads(min(int(n), MOST_THREADS))


class num_threads:
    """Use ``n`` threads inside a ``with`` block.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import evergrad
    >>> with evergrad.num_threads(1):
    ...     evergrad.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._previous: list[int] = []  # of each block that is open

    def __enter__(self) -> num_threads:
        self._previous.append(get_num_threads())
        set_num_threads(self._n)
        return self

    def __exit__(self, *exc: object) -> None:
        set_num_threads(self._previous.pop())


def show_config() -> dict[str, Any]:
    """What this process runs on: version, backend, ISA, threads, and what every op resolved to.

    Returns
    -------
    dict
        ``backend``; ``isa`` and ``isas`` (in use, and available on this CPU); ``threads``; ``ops``
        (op -> backend); ``notes``, one line for everything that is slower than it could be.

    Examples
    --------
    >>> import evergrad
    >>> sorted(evergrad.show_config())
    ['backend', 'backends', 'isa', 'isas', 'notes', 'ops', 'threads', 'version']
    """
    from .._version import __version__

    notes = []
    if _native is None:
        notes.append(f"native kernels are missing ({_native_error}); expect to be much slower")
    elif active.name != "native":
        notes.append(f"the {active.name} backend is active; native is faster")
    else:
        best = _native.available_isas()[-1]
        if _native.get_isa() != best:
            notes.append(f"capped at {_native.get_isa()}; this CPU has {best}")
        if _native.is_forked_child():
            notes.append(
                "forked child of a process that used OpenMP, or loaded what may: one thread only"
            )
    fallen = [op for op, source in active.resolved.items() if source != active.name]
    if fallen:
        notes.append(f"falling back to the reference: {', '.join(fallen)}")
    return {
        "version": __version__,
        "backend": active.name,
        "backends": available_backends(),
        "isa": _native.get_isa() if active.name == "native" else None,
        "isas": _native.available_isas() if _native is not None else [],
        "threads": get_num_threads(),
        "ops": dict(active.resolved),
        "notes": notes,
    }


def _read_environment() -> None:
    """The environment speaks once, at import; nonsense in it is an error, not a silent default."""
    isa = os.environ.get("EVERGRAD_ISA")
    if isa and _native is not None:
        try:
            _native.set_isa(isa)
        except ValueError as error:
            raise ValueError(f"EVERGRAD_ISA: {str(error).removeprefix('isa: ')}") from None
    threads = os.environ.get("EVERGRAD_NUM_THREADS")
    if threads:
        if not threads.isdecimal() or not 1 <= int(threads) <= MOST_THREADS:
            raise ValueError(
                "EVERGRAD_NUM_THREADS: expected an integer from 1 to "
                f"{MOST_THREADS}, got {threads!r}"
            )
        set_num_threads(int(threads))
    backend = os.environ.get("EVERGRAD_BACKEND")
    if backend and backend not in _NAMES:
        raise ValueError(f"EVERGRAD_BACKEND: expected one of {', '.join(_NAMES)}, got {backend!r}")
    _activate(backend or available_backends()[0])


_read_environment()
