"""Argument checks shared by every op: once, first, naming the argument, what came, what was due.

Each check has a fast path of a few attribute reads, and words only when it fails.
"""

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np

from ..backends import active

_F32 = np.dtype(np.float32)
_F64 = np.dtype(np.float64)
_I64 = np.dtype(np.int64)
_U64 = np.dtype(np.uint64)
_I32 = np.dtype(np.int32)


def describe(x: Any) -> str:
    if isinstance(x, np.ndarray):
        kind = "array" if type(x) is np.ndarray else type(x).__name__
        return f"{x.dtype} {kind} of shape {x.shape}"
    return type(x).__name__


def shown(value: Any) -> str:
    """``value`` for an error's sentence: an array described, all else at most 100 characters."""
    return describe(value) if isinstance(value, np.ndarray) else f"{value!r:.100}"


def array(name: str, x: Any, expected: str) -> None:
    """``x`` is an array that is what its memory says.

    Of the subclasses, a memory map is. A matrix keeps two dimensions whatever is asked of it, and
    multiplies where others scale; a mask would be lost on the way to the kernels.
    """
    if type(x) is np.ndarray:
        return
    if not isinstance(x, np.ndarray) or isinstance(x, np.matrix) or hasattr(x, "mask"):
        raise TypeError(f"{name}: expected {expected}, got {describe(x)}")


def floats(name: str, x: Any, contiguous: bool = True) -> None:
    """``x`` is a float32 array (float64 too in the reference backend), aligned and contiguous."""
    if type(x) is np.ndarray and x.dtype is _F32 and x.flags.carray:
        return
    array(name, x, "a float32 numpy array")
    if x.dtype != _F32 and not (active.float64 and x.dtype == _F64):
        hint = " (float64 works in the reference backend)" if x.dtype == _F64 else ""
        raise TypeError(f"{name}: expected float32, got {describe(x)}{hint}")
    if contiguous and not x.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array, got strides {x.strides} for shape {x.shape}; "
            f"use numpy.ascontiguousarray"
        )
    if not x.flags.aligned:
        raise ValueError(f"{name}: expected aligned memory, got data at an odd address")


def last_contiguous(name: str, x: Any) -> None:
    """``x`` is as for ``floats``, but only its last axis has to be contiguous."""
    if type(x) is np.ndarray and x.dtype is _F32 and x.flags.carray:
        return
    floats(name, x, contiguous=False)
    strides, itemsize = x.strides, x.itemsize
    if strides and strides[-1] != itemsize and x.size and x.shape[-1] > 1:
        raise ValueError(f"{name}: expected a contiguous last axis, got strides {strides}")
    for stride, length in zip(strides, x.shape):
        if length > 1 and (stride < 0 or stride % itemsize):
            raise ValueError(f"{name}: expected strides that are multiples of {itemsize} bytes, "
                             f"none negative, got {strides}")  # fmt: skip


def same_dtype(first_name: str, first: np.ndarray, /, **others: np.ndarray | None) -> None:
    """All of ``others``, which passed ``floats``, are as wide as ``first``."""
    if not active.float64:
        return  # there is but one width
    for name, x in others.items():
        if x is not None and x.dtype is not first.dtype and x.dtype != first.dtype:
            raise TypeError(f"{name}: expected {first.dtype} like {first_name}, got {describe(x)}")


def fits(x: Any, shape: tuple[int, ...], first: np.ndarray) -> bool:
    """In one look: a writable C-contiguous array of this shape and of the dtype of ``first``."""
    return type(x) is np.ndarray and x.dtype is first.dtype and x.shape == shape and x.flags.carray


def optional(name: str, x: Any, shape: tuple[int, ...], first_name: str, first: np.ndarray) -> None:
    """``x`` is None, or an array of exactly this shape and of the dtype of ``first``."""
    if x is None or fits(x, shape, first):
        return
    floats(name, x)
    has_shape(name, x, shape)
    same_dtype(first_name, first, **{name: x})


def required(name: str, x: Any, shape: tuple[int, ...], first_name: str, first: np.ndarray) -> None:
    """Like ``optional``, but None is an error."""
    if x is None:
        floats(name, x)
    optional(name, x, shape, first_name, first)


def has_shape(name: str, x: np.ndarray, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {x.shape}")


def has_rank(name: str, x: np.ndarray, least: int, most: int | None = None) -> None:
    if x.ndim < least or (most is not None and x.ndim > most):
        wanted = (
            f"{least}"
            if most == least
            else f"{least} or more"
            if most is None
            else (f"{least} to {most}")
        )
        raise ValueError(f"{name}: expected {wanted} dimensions, got shape {x.shape}")


def output(
    name: str,
    out: Any,
    shape: tuple[int, ...],
    like_name: str,
    like: np.ndarray,
    *,
    contiguous: bool = True,
) -> None:
    """``out`` is None, or a writable array of this shape to be written or accumulated into."""
    if out is None or fits(out, shape, like):
        return
    floats(name, out, contiguous)
    has_shape(name, out, shape)
    same_dtype(like_name, like, **{name: out})
    if not out.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    # From the innermost axis outwards, each step has to go past what lies within.
    extent = 0
    axes = sorted((abs(stride), length) for stride, length in zip(out.strides, out.shape))
    for stride, length in axes if out.size else ():
        if length > 1:
            if stride <= extent:
                raise ValueError(
                    f"{name}: expected elements with memory of their own, got strides "
                    f"{out.strides} for shape {out.shape}"
                )
            extent += stride * (length - 1)


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element; strided slices of one array need not."""
    return np.may_share_memory(a, b) and np.may_share_memory(a, b, max_work=10000)  # type: ignore[arg-type]


def no_overlap(name: str, out: np.ndarray | None, /, **inputs: np.ndarray | None) -> None:
    """``out`` shares no memory with the inputs."""
    if out is None or active.apart(out, *inputs.values()):
        return
    for other, x in inputs.items():
        if x is not None and overlap(out, x):
            raise ValueError(
                f"{name}: expected memory of its own, got an array that overlaps {other}"
            )


def each_apart(inputs: dict[str, np.ndarray | None], /, **outs: np.ndarray | None) -> None:
    """Each of ``outs`` shares memory neither with the inputs nor with another."""
    for name, out in outs.items():
        if out is not None:
            no_overlap(name, out, **inputs)
            inputs = {**inputs, name: out}


def in_place_or_apart(name: str, out: np.ndarray | None, /, **inputs: np.ndarray | None) -> None:
    """``out`` is the very memory of an input (element by element it is safe), or shares none."""
    if out is None or active.apart(out, *inputs.values()):
        return
    for other, x in inputs.items():
        if (
            x is not None
            and x is not out
            and overlap(out, x)
            and not (
                x.ctypes.data == out.ctypes.data
                and x.shape == out.shape
                and (x.strides == out.strides or (x.flags.c_contiguous and out.flags.c_contiguous))
            )
        ):
            raise ValueError(f"{name}: expected {other} itself or memory apart from it, got a part")


def _int64(x: np.ndarray) -> np.ndarray:
    """As C-contiguous, aligned int64: x itself where it is."""
    x = np.asarray(x, _I64, order="C")
    return x if x.flags.aligned else x.copy()


def indices(name: str, x: Any, upper: int, ignore: int | None = None) -> np.ndarray:
    """Check integer indices against [0, upper) (or equal to ``ignore``); returns them as int64."""
    if active.within(x, upper):
        return x
    array(name, x, "an int64 numpy array")
    if x.dtype != _I64 and x.dtype != _I32:
        raise TypeError(f"{name}: expected int64 or int32, got {describe(x)}")
    x = _int64(x)
    # As unsigned numbers the negative ones are huge: one reduction looks at both bounds.
    if x.size and np.maximum.reduce(x.reshape(-1).view(_U64)) >= upper:
        low, high = int(x.min()), int(x.max())
        if ignore is not None and (low == ignore or high == ignore):
            counted = x[x != ignore]
            low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, -1)
        if low < 0 or high >= upper:
            raise IndexError(
                f"{name}: expected values in [0, {upper})"
                + ("" if ignore is None else f" or {ignore}")
                + f", got {low if low < 0 else high}"
            )
    return x


def offsets(
    name: str, x: Any, tokens_name: str | None = None, tokens: int | None = None
) -> np.ndarray:
    """Check offsets of packed sequences, which rise from 0; returns them as int64."""
    if active.rising(x, tokens):
        return x
    array(name, x, "an int64 array")
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an int64 array, got {describe(x)}")
    has_rank(name, x, 1, 1)
    x = _int64(x)
    if (
        not x.size
        or x.item(0) != 0
        or (tokens is not None and x.item(-1) != tokens)
        or np.logical_or.reduce(x[1:] < x[:-1])
    ):
        end = "" if tokens is None else f" to the {tokens} tokens of {tokens_name}"
        raise ValueError(
            f"{name}: expected offsets that rise from 0{end}, got {np.array2string(x, threshold=6)}"
        )
    return x


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if isinstance(value, np.ndarray) or value not in allowed:
        raise ValueError(
            f"{name}: expected one of {', '.join(map(repr, allowed))}, got {shown(value)}"
        )


def real(name: str, value: Any) -> float:
    """A real number; NaN and infinity too."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_high: bool = False,
) -> float:
    """A real number within [low, high] (or [low, high) with ``open_high``)."""
    value = real(name, value)
    if not (low <= value and (value < high if open_high else value <= high)):
        raise ValueError(
            f"{name}: expected a number in [{low:g}, {high:g}{')' if open_high else ']'}, "
            f"got {value:g}"
        )
    return value


def softcap(value: Any) -> float:
    """0, or what float32 can divide scores by."""
    value = number("softcap", value, 0.0, 1e30)
    if 0.0 < value < 1e-30:
        raise ValueError(f"softcap: expected 0 or a number in [1e-30, 1e+30], got {value:g}")
    return value


def integer(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is int and low <= value <= high:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value}")
    return int(value)


@overload
def shaped(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray: ...
@overload
def shaped(x: None, shape: tuple[int, ...]) -> None: ...
def shaped(x: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """``x`` seen in another shape; no copy, and x itself where it has that shape."""
    return x if x is None or x.shape == shape else x.reshape(shape)


@overload
def rows(x: np.ndarray) -> np.ndarray: ...
@overload
def rows(x: None) -> None: ...
def rows(x: np.ndarray | None) -> np.ndarray | None:
    """[..., n] seen as [rows, n]; no copy."""
    if x is None or x.ndim == 2:
        return x
    shape = x.shape
    return x.reshape(-1 if shape[-1] else math.prod(shape[:-1]), shape[-1])
