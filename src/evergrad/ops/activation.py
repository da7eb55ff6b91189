"""Activations, element by element, and their gradients."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check


def _forward_checks(x: np.ndarray, out: np.ndarray | None) -> None:
    _check.floats("x", x)
    if out is not None:
        _check.output("out", out, x.shape, "x", x)
        _check.in_place_or_apart("out", out, x=x)


def _backward_checks(name: str, saved: np.ndarray, dout: np.ndarray, dx: np.ndarray | None) -> None:
    _check.floats(name, saved)
    _check.required("dout", dout, saved.shape, name, saved)
    if dx is not None:
        _check.output("dx", dx, saved.shape, name, saved)
        _check.in_place_or_apart("dx", dx, **{"dout": dout, name: saved})


def relu(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """max(x, 0).

    Parameters
    ----------
    x : ndarray, float32, [...]
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.relu(np.array([-1.0, 2.0], np.float32))
    array([0., 2.], dtype=float32)
    """
    _forward_checks(x, out)
    return active.relu(x, out)


def relu_backward(dout: np.ndarray, out: np.ndarray, *, dx: np.ndarray | None = None) -> np.ndarray:
    """dx = dout where out > 0, else 0.

    Parameters
    ----------
    dout, out : ndarray, float32, [...]
        The cotangent, and what ``relu`` returned.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``out``.

    Raises
    ------
    TypeError, ValueError
        As ``relu``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.relu_backward(np.ones(2, np.float32), np.array([0.0, 2.0], np.float32))
    array([0., 1.], dtype=float32)
    """
    _backward_checks("out", out, dout, dx)
    return active.relu_backward(dout, out, dx)


def sigmoid(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """1 / (1 + exp(-x)).

    Parameters
    ----------
    x : ndarray, float32, [...]
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.sigmoid(np.zeros(1, np.float32))
    array([0.5], dtype=float32)
    """
    _forward_checks(x, out)
    return active.sigmoid(x, out)


def sigmoid_backward(
    dout: np.ndarray, out: np.ndarray, *, dx: np.ndarray | None = None
) -> np.ndarray:
    """dx = dout * out * (1 - out).

    Parameters
    ----------
    dout, out : ndarray, float32, [...]
        The cotangent, and what ``sigmoid`` returned.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``out``.

    Raises
    ------
    TypeError, ValueError
        As ``sigmoid``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.sigmoid_backward(np.ones(1, np.float32), np.array([0.5], np.float32))
    array([0.25], dtype=float32)
    """
    _backward_checks("out", out, dout, dx)
    return active.sigmoid_backward(dout, out, dx)


def tanh(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """The hyperbolic tangent.

    Parameters
    ----------
    x : ndarray, float32, [...]
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.tanh(np.zeros(1, np.float32))
    array([0.], dtype=float32)
    """
    _forward_checks(x, out)
    return active.tanh(x, out)


def tanh_backward(dout: np.ndarray, out: np.ndarray, *, dx: np.ndarray | None = None) -> np.ndarray:
    """dx = dout * (1 - out**2).

    Parameters
    ----------
    dout, out : ndarray, float32, [...]
        The cotangent, and what ``tanh`` returned.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``out``.

    Raises
    ------
    TypeError, ValueError
        As ``tanh``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.tanh_backward(np.ones(1, np.float32), np.array([0.5], np.float32))
    array([0.75], dtype=float32)
    """
    _backward_checks("out", out, dout, dx)
    return active.tanh_backward(dout, out, dx)


def gelu(x: np.ndarray, approximate: str = "none", *, out: np.ndarray | None = None) -> np.ndarray:
    r"""Gaussian error linear unit (Hendrycks & Gimpel 2016): :math:`x\,\Phi(x)`.

    With ``approximate="tanh"``:
    :math:`\tfrac{x}{2}(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715 x^3)))`.

    Parameters
    ----------
    x : ndarray, float32, [...]
    approximate : {"none", "tanh"}
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``, an unknown
        ``approximate``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.gelu(np.array([0.0, 10.0], np.float32))
    array([ 0., 10.], dtype=float32)
    """
    _check.choice("approximate", approximate, ("none", "tanh"))
    _forward_checks(x, out)
    return active.gelu(x, approximate, out)


def gelu_backward(
    dout: np.ndarray, x: np.ndarray, approximate: str = "none", *, dx: np.ndarray | None = None
) -> np.ndarray:
    r"""dx = dout * d gelu(x)/dx; for ``"none"`` that is :math:`\Phi(x) + x\,\varphi(x)`.

    Parameters
    ----------
    dout, x : ndarray, float32, [...]
        The cotangent, and what ``gelu`` was given.
    approximate : {"none", "tanh"}
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        As ``gelu``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.gelu_backward(np.ones(1, np.float32), np.zeros(1, np.float32))
    array([0.5], dtype=float32)
    """
    _check.choice("approximate", approximate, ("none", "tanh"))
    _backward_checks("x", x, dout, dx)
    return active.gelu_backward(dout, x, approximate, dx)


def silu(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    r"""Sigmoid linear unit, or swish (Elfwing et al. 2018): :math:`x\,\sigma(x)`.

    Parameters
    ----------
    x : ndarray, float32, [...]
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.silu(np.array([0.0, 20.0], np.float32))
    array([ 0., 20.], dtype=float32)
    """
    _forward_checks(x, out)
    return active.silu(x, out)


def silu_backward(dout: np.ndarray, x: np.ndarray, *, dx: np.ndarray | None = None) -> np.ndarray:
    r"""dx = dout * (s + x s (1 - s)) with :math:`s = \sigma(x)`.

    Parameters
    ----------
    dout, x : ndarray, float32, [...]
        The cotangent, and what ``silu`` was given.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        As ``silu``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.silu_backward(np.ones(1, np.float32), np.zeros(1, np.float32))
    array([0.5], dtype=float32)
    """
    _backward_checks("x", x, dout, dx)
    return active.silu_backward(dout, x, dx)
