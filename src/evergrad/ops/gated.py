"""Gated activations and their gradients."""

from __future__ import annotations

import math

import numpy as np

from ..backends import active
from . import _check


def _gated_checks(gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for name, x in (("gate", gate), ("up", up)):
        _check.last_contiguous(name, x)
        _check.has_rank(name, x, 1)
    _check.has_shape("up", up, gate.shape)
    _check.same_dtype("gate", gate, up=up)
    return _strided_rows(gate), _strided_rows(up)


def _strided_rows(x: np.ndarray) -> np.ndarray:
    """[..., n] seen as [rows, n]: a copy only where the rows are not evenly spaced."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _gated(gate: np.ndarray, up: np.ndarray, activation: str, out: np.ndarray | None) -> np.ndarray:
    gate_rows, up_rows = _gated_checks(gate, up)
    if out is not None:
        _check.output("out", out, gate.shape, "gate", gate)
        _check.in_place_or_apart("out", out, gate=gate, up=up)
    if gate.size == 0:
        return np.empty(gate.shape, gate.dtype) if out is None else out
    result = active.gated(gate_rows, up_rows, activation, _check.rows(out))
    return result.reshape(gate.shape) if out is None else out


def _gated_backward(
    dout: np.ndarray,
    gate: np.ndarray,
    up: np.ndarray,
    activation: str,
    dgate: np.ndarray | None,
    dup: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    gate_rows, up_rows = _gated_checks(gate, up)
    _check.required("dout", dout, gate.shape, "gate", gate)
    targets: list[np.ndarray | None] = []
    for name, d in (("dgate", dgate), ("dup", dup)):
        if d is None:
            targets.append(None)
            continue
        _check.output(name, d, gate.shape, "gate", gate, contiguous=False)
        _check.last_contiguous(name, d)
        _check.in_place_or_apart(name, d, dout=dout, gate=gate, up=up)
        rows = _strided_rows(d)
        if d.size and not np.may_share_memory(rows, d):
            raise ValueError(f"{name}: expected evenly spaced rows, got strides {d.strides}")
        targets.append(rows)
    _check.no_overlap("dup", dup, dgate=dgate)
    if gate.size == 0:
        new = np.empty(gate.shape, gate.dtype), np.empty(gate.shape, gate.dtype)
    else:
        new = active.gated_backward(_check.rows(dout), gate_rows, up_rows, activation, *targets)
    return (
        new[0].reshape(gate.shape) if dgate is None else dgate,
        new[1].reshape(gate.shape) if dup is None else dup,
    )


def swiglu(gate: np.ndarray, up: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    r"""Gated linear unit with SiLU (Shazeer 2020): :math:`\mathrm{silu}(gate) \cdot up`.

    Parameters
    ----------
    gate, up : ndarray, float32, [..., n]
        Two arrays, or the halves of one [..., 2 n] that a single projection gave: only the last
        axis has to be contiguous.
    out : ndarray, optional
        Written instead of a new array; may be ``gate`` or ``up`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``gate``, contiguous.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> h = np.array([[20.0, 0.0, 3.0, 4.0]], np.float32)
    >>> ops.swiglu(h[:, :2], h[:, 2:])
    array([[60.,  0.]], dtype=float32)
    """
    return _gated(gate, up, "silu", out)


def swiglu_backward(
    dout: np.ndarray,
    gate: np.ndarray,
    up: np.ndarray,
    *,
    dgate: np.ndarray | None = None,
    dup: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Both gradients of ``swiglu`` in one pass.

    dgate = dout * up * silu'(gate); dup = dout * silu(gate).

    Parameters
    ----------
    dout, gate, up : ndarray, float32, [..., n]
        The cotangent, and what ``swiglu`` was given.
    dgate, dup : ndarray, optional
        Written instead of new arrays; they may be halves of one array, and the memory of ``gate``,
        ``up`` or ``dout`` itself. Their rows have to be evenly spaced.

    Returns
    -------
    dgate, dup : ndarray
        float32, the shape of ``gate``.

    Raises
    ------
    TypeError, ValueError
        As ``swiglu``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> one = np.ones((1, 1), np.float32)
    >>> dgate, dup = ops.swiglu_backward(one, 0 * one, 2 * one)
    >>> dgate.item(), dup.item()
    (1.0, 0.0)
    """
    return _gated_backward(dout, gate, up, "silu", dgate, dup)


def geglu(
    gate: np.ndarray,
    up: np.ndarray,
    approximate: str = "none",
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Gated linear unit with GELU (Shazeer 2020): :math:`\mathrm{gelu}(gate) \cdot up`.

    Parameters
    ----------
    gate, up : ndarray, float32, [..., n]
        Two arrays, or the halves of one, as for ``swiglu``.
    approximate : {"none", "tanh"}
        As for ``gelu``.
    out : ndarray, optional
        Written instead of a new array; may be ``gate`` or ``up`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``gate``, contiguous.

    Raises
    ------
    TypeError, ValueError
        As ``swiglu``; for an unknown ``approximate``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.geglu(np.array([10.0], np.float32), np.array([3.0], np.float32))
    array([30.], dtype=float32)
    """
    _check.choice("approximate", approximate, ("none", "tanh"))
    return _gated(gate, up, "gelu" if approximate == "none" else "gelu_tanh", out)


def geglu_backward(
    dout: np.ndarray,
    gate: np.ndarray,
    up: np.ndarray,
    approximate: str = "none",
    *,
    dgate: np.ndarray | None = None,
    dup: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Both gradients of ``geglu`` in one pass.

    dgate = dout * up * gelu'(gate); dup = dout * gelu(gate).

    Parameters
    ----------
    dout, gate, up : ndarray, float32, [..., n]
        The cotangent, and what ``geglu`` was given.
    approximate : {"none", "tanh"}
        As in the forward call.
    dgate, dup : ndarray, optional
        As for ``swiglu_backward``.

    Returns
    -------
    dgate, dup : ndarray
        float32, the shape of ``gate``.

    Raises
    ------
    TypeError, ValueError
        As ``geglu``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> one = np.ones((1, 1), np.float32)
    >>> dgate, dup = ops.geglu_backward(one, 0 * one, 2 * one)
    >>> dgate.item(), dup.item()
    (1.0, 0.0)
    """
    _check.choice("approximate", approximate, ("none", "tanh"))
    activation = "gelu" if approximate == "none" else "gelu_tanh"
    return _gated_backward(dout, gate, up, activation, dgate, dup)
