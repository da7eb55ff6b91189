"""The last layer of a classifier and its loss, by chunks of rows: all logits never exist at once.

The products are NumPy's. A chunk keeps its logits from the loss to the gradients, so that both
together take three products; the gradients alone make the logits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..reference._common import ieee
from ._kernel import ROWS, bounds, kernel, pieces, present
from ._math import ONE, ZERO, tanh
from .loss import cross_entropy, cross_entropy_backward

Array = NDArray[Any]

_KEPT = 1 << 24  # logits of a chunk: 64 MB
_CLASSES = 4096  # whose weight gradient is made at once, before it is added


@kernel
def _finish_logits(z: Array, bias: Array, softcap: float) -> None:
    """z = c tanh((z + bias) / c), in place."""
    rows, n = z.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        for r in range(lo, hi):
            row = z[r]
            if bias.size > 0:
                for j in range(n):
                    row[j] += bias[j]
            if softcap > ZERO:
                for j in range(n):
                    row[j] = softcap * tanh(row[j] / softcap)


@kernel
def _through_softcap(z: Array, softcap: float, target: Array, ignore_index: int, dz: Array) -> None:
    """dz *= 1 - (z / c)^2; rows that do not count stay zeros, whatever they hold."""
    rows, n = z.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        for r in range(lo, hi):
            if target[r] == ignore_index:
                continue
            capped, d = z[r], dz[r]
            for j in range(n):
                t = capped[j] / softcap
                d[j] *= ONE - t * t


def _chunks(rows: int, classes: int) -> Iterator[slice]:
    step = max(1, _KEPT // max(classes, 1))
    for begin in range(0, rows, step):
        yield slice(begin, min(rows, begin + step))


def _logits(x: Array, weight: Array, bias: Array | None, softcap: float) -> Array:
    z = x @ weight.T
    if bias is not None or softcap > 0:
        _finish_logits(z, present(bias, 1), np.float32(softcap))
    return z


@ieee
def linear_cross_entropy(
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
) -> tuple[Array, Array]:
    """x [rows, in], weight [classes, in], target [rows] -> (losses [rows], lse [rows])."""
    losses, lse = np.empty(target.size, np.float32), np.empty(target.size, np.float32)
    for rows in _chunks(x.shape[0], weight.shape[0]):
        z = _logits(x[rows], weight, bias, softcap)
        losses[rows], lse[rows] = cross_entropy(z, target[rows], ignore_index, label_smoothing)
    return losses, lse


@ieee
def _gradients(
    drows: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    lse: Array | None,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array, Array | None, Array | None, Array | None]:
    """(losses unless lse is given, dx, dweight, dbias)."""
    losses = np.empty(target.size, np.float32)
    if need_dx and dx is None:
        dx = np.empty_like(x)
    if need_dweight and dweight is None:
        dweight = np.zeros_like(weight)
    if need_dbias and dbias is None:
        dbias = np.zeros(weight.shape[0], np.float32)
    for rows in _chunks(x.shape[0], weight.shape[0]):
        z, label = _logits(x[rows], weight, bias, softcap), target[rows]
        if lse is None:
            losses[rows], chunk_lse = cross_entropy(z, label, ignore_index, label_smoothing)
        else:
            chunk_lse = lse[rows]
        dz = cross_entropy_backward(
            drows[rows], z, label, chunk_lse, ignore_index, label_smoothing,
            None if softcap > 0 else z,
        )  # fmt: skip
        if softcap > 0:
            _through_softcap(z, np.float32(softcap), label, ignore_index, dz)
        if need_dx and dx is not None:
            np.matmul(dz, weight, out=dx[rows])
        if need_dweight and dweight is not None:
            for first in range(0, weight.shape[0], _CLASSES):
                block = slice(first, first + _CLASSES)
                dweight[block] += dz[:, block].T @ x[rows]
        if need_dbias and dbias is not None:
            dbias += dz.sum(axis=0)
    return (
        losses,
        dx if need_dx else None,
        dweight if need_dweight else None,
        dbias if need_dbias else None,
    )


def linear_cross_entropy_backward(
    drows: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    lse: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx = dz W,  dweight += dz^T x,  dbias += sum of dz over rows."""
    _, dx, dweight, dbias = _gradients(
        drows, x, weight, bias, target, lse, ignore_index, label_smoothing, softcap,
        dx, dweight, dbias, need_dx, need_dweight, need_dbias,
    )  # fmt: skip
    return dx, dweight, dbias


def linear_cross_entropy_with_grads(
    drows: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array, Array | None, Array | None, Array | None]:
    """(losses, dx, dweight, dbias) in one pass."""
    return _gradients(
        drows, x, weight, bias, target, None, ignore_index, label_smoothing, softcap,
        dx, dweight, dbias, need_dx, need_dweight, need_dbias,
    )  # fmt: skip
