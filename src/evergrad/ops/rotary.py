"""Rotary position embedding and its gradient."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check


def rotary_table(
    length: int,
    dim: int,
    theta: float = 10000.0,
    *,
    inv_freq: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Cosines and sines for ``rotary``: of :math:`p\,\theta^{-2j/d}` at position p, for pair j.

    Parameters
    ----------
    length : int
        Number of positions.
    dim : int
        How many numbers of a head are turned; even.
    theta : float
        The base of the frequencies; at least 1.
    inv_freq : ndarray, [dim / 2], optional
        Frequencies in radians a position, instead of :math:`\theta^{-2j/d}`: a stretched context
        (linear, NTK, YaRN, Llama 3) is a matter of these alone.

    Returns
    -------
    cos, sin : ndarray
        float32, [length, dim / 2]; computed in float64, so that far positions keep their angle.

    Raises
    ------
    TypeError, ValueError
        For a negative length, an odd or negative ``dim``, frequencies of another number.

    Examples
    --------
    >>> from evergrad import ops
    >>> cos, sin = ops.rotary_table(3, 4)
    >>> sin.round(2)
    array([[0.  , 0.  ],
           [0.84, 0.01],
           [0.91, 0.02]], dtype=float32)
    """
    length = _check.integer("length", length, 0, 2**31)
    dim = _check.integer("dim", dim, 0, 2**31)
    if dim % 2:
        raise ValueError(f"dim: expected an even number, got {dim}")
    if inv_freq is None:
        theta = _check.number("theta", theta, 1.0)
        inv_freq = theta ** (-np.arange(0, dim, 2, dtype=np.float64) / max(dim, 1))
    else:
        inv_freq = np.asarray(inv_freq, np.float64)
        _check.has_shape("inv_freq", inv_freq, (dim // 2,))
    angles = np.arange(length, dtype=np.float64)[:, None] * inv_freq
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _rotate(
    x_name: str,
    x: np.ndarray,
    cos: np.ndarray,
    sin: np.ndarray,
    interleaved: bool,
    positions: np.ndarray | None,
    inverse: bool,
    out_name: str,
    out: np.ndarray | None,
) -> np.ndarray:
    _check.last_contiguous(x_name, x)
    _check.has_rank(x_name, x, 3, 4)
    _check.floats("cos", cos)
    _check.has_rank("cos", cos, 2, 2)
    _check.required("sin", sin, cos.shape, "cos", cos)
    _check.same_dtype(x_name, x, cos=cos)
    length, half = cos.shape
    if 2 * half > x.shape[-1]:
        raise ValueError(
            f"cos: expected at most half of head_dim, {x.shape[-1] // 2}, in the last dimension, "
            f"got shape {cos.shape}"
        )
    tokens = x.shape[:-2]
    if positions is not None:
        positions = _check.indices("positions", positions, length)
        _check.has_shape("positions", positions, tokens)
    elif tokens[-1] > length:
        raise ValueError(
            f"cos: expected a row for each of the {tokens[-1]} tokens of {x_name}, "
            f"got shape {cos.shape}"
        )
    if out is not None:
        _check.output(out_name, out, x.shape, x_name, x, contiguous=False)
        _check.last_contiguous(out_name, out)
        _check.in_place_or_apart(out_name, out, **{x_name: x})
        _check.no_overlap(out_name, out, cos=cos, sin=sin, positions=positions)
    return active.rotary(x, cos, sin, bool(interleaved), positions, inverse, out)


def rotary(
    x: np.ndarray,
    cos: np.ndarray,
    sin: np.ndarray,
    *,
    interleaved: bool = False,
    positions: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Rotary position embedding (Su et al. 2021): pairs of a head's numbers turn by an angle.

    :math:`(a, b) \to (a \cos - b \sin,\; b \cos + a \sin)` for the first 2 d numbers of each head,
    d the tables' last dimension; what stands behind them is passed on as it is.

    Parameters
    ----------
    x : ndarray, float32, [batch, tokens, heads, head_dim] or [total, heads, head_dim]
        Any outer strides: queries and keys inside a packed projection may be turned in one call.
    cos, sin : ndarray, float32, [length, d]
        A row for each position, as ``rotary_table`` makes them.
    interleaved : bool
        False: the pairs are (j, j + d), as in Llama and NeoX. True: (2 j, 2 j + 1), as in GPT-J.
    positions : ndarray, int64 or int32, [batch, tokens] or [total], optional
        Rows of the tables; without them token t has position t. Packed sequences need them.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself. Any outer strides.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes or strides that do not fit, a read-only ``out``.
    IndexError
        For a position that the tables do not have.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.array([1.0, 0.0], np.float32).reshape(1, 1, 1, 2)
    >>> zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    >>> ops.rotary(x, zero, one).ravel()          # a quarter of a turn
    array([0., 1.], dtype=float32)
    """
    return _rotate("x", x, cos, sin, interleaved, positions, False, "out", out)


def rotary_backward(
    dout: np.ndarray,
    cos: np.ndarray,
    sin: np.ndarray,
    *,
    interleaved: bool = False,
    positions: np.ndarray | None = None,
    dx: np.ndarray | None = None,
) -> np.ndarray:
    r"""Gradient of ``rotary``, which is the inverse rotation.

    :math:`(da, db) \to (da \cos + db \sin,\; db \cos - da \sin)`.

    Parameters
    ----------
    dout : ndarray, float32, [batch, tokens, heads, head_dim] or [total, heads, head_dim]
        Any outer strides.
    cos, sin, interleaved, positions
        As in the forward call.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself. Any outer strides.

    Returns
    -------
    ndarray
        float32, the shape of ``dout``.

    Raises
    ------
    TypeError, ValueError, IndexError
        As ``rotary``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.random.default_rng(0).standard_normal((1, 3, 2, 4), np.float32)
    >>> cos, sin = ops.rotary_table(3, 4)
    >>> np.allclose(ops.rotary_backward(ops.rotary(x, cos, sin), cos, sin), x, atol=1e-6)
    True
    """
    return _rotate("dout", dout, cos, sin, interleaved, positions, True, "dx", dx)
