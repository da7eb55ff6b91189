"""Normalisation of rows: layer norm and RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ._backward import NOTHING, once
from ._buffer import Array
from .module import Module
from .parameter import Parameter

__all__ = ["LayerNorm", "RMSNorm"]


class LayerNorm(Module):
    """Normalise each row: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    dim : int
        Size of the last dimension, over which mean and (biased) variance are taken.
    eps : float, default 1e-5
        Added to the variance.

    Attributes
    ----------
    weight, bias : Parameter
        [dim], initially 1 and 0.

    References
    ----------
    Ba, Kiros & Hinton, "Layer Normalization", 2016, arXiv:1607.06450.

    Examples
    --------
    >>> out, backward = LayerNorm(2)(np.array([[1.0, 3.0]], np.float32))
    >>> out.round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(dim, np.float32))
        self.bias = Parameter(np.zeros(dim, np.float32))
        self.eps = eps

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Normalise x [..., dim].

        Returns
        -------
        out : ndarray
            [..., dim].
        backward : callable
            (dout, dresidual=None) -> dx, with `again`. `dresidual` is the cotangent that reaches x
            on the residual path beside the norm; it is added to dx in the same pass.
        """
        weight, bias = self.weight, self.bias

        def again() -> Any:
            return ops.layer_norm(x, weight.data.shape, weight.data, bias.data, self.eps)

        if not (need_dx or weight.requires_grad or bias.requires_grad):
            return again(), NOTHING
        out, mean, rstd = ops.layer_norm(
            x, weight.data.shape, weight.data, bias.data, self.eps, return_stats=True
        )

        def backward(dout: Array, *, dresidual: Array | None = None) -> Array | None:
            dx, _, _ = ops.layer_norm_backward(
                dout,
                x,
                mean,
                rstd,
                weight.data,
                dresidual=dresidual if need_dx else None,
                dweight=weight.grad,
                dbias=bias.grad,
                need_dx=need_dx,
                need_dweight=weight.requires_grad,
                need_dbias=bias.requires_grad,
            )
            return dx

        return out, once(backward, again)


class RMSNorm(Module):
    """Scale each row to a root mean square of 1: ``y = x / sqrt(mean(x^2) + eps) * weight``.

    Parameters
    ----------
    dim : int
        Size of the last dimension, over which the mean is taken.
    eps : float, default 1e-6
        Added to the mean square.

    Attributes
    ----------
    weight : Parameter
        [dim], initially 1.

    References
    ----------
    Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.

    Examples
    --------
    >>> out, backward = RMSNorm(2)(np.array([[3.0, 4.0]], np.float32))
    >>> out.round(3)
    array([[0.849, 1.131]], dtype=float32)
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        self.weight = Parameter(np.ones(dim, np.float32))
        self.eps = eps

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Normalise x [..., dim].

        Returns
        -------
        out : ndarray
            [..., dim].
        backward : callable
            (dout, dresidual=None) -> dx, with `again`; as for `LayerNorm`.
        """
        weight = self.weight

        def again() -> Any:
            return ops.rms_norm(x, weight.data.shape, weight.data, self.eps)

        if not (need_dx or weight.requires_grad):
            return again(), NOTHING
        out, rstd = ops.rms_norm(x, weight.data.shape, weight.data, self.eps, return_stats=True)

        def backward(dout: Array, *, dresidual: Array | None = None) -> Array | None:
            dx, _ = ops.rms_norm_backward(
                dout,
                x,
                rstd,
                weight.data,
                dresidual=dresidual if need_dx else None,
                dweight=weight.grad,
                need_dx=need_dx,
                need_dweight=weight.requires_grad,
            )
            return dx

        return out, once(backward, again)
