"""The last layer of a classifier, with its loss."""

from __future__ import annotations

from typing import Any

from .. import ops
from ._backward import once
from ._buffer import Array
from .linear import Linear

__all__ = ["Head"]


class Head(Linear):
    """A `Linear` that gives the logits of classes, and their cross-entropy without the logits.

    Called, it returns logits, as `Linear` does. `loss` and `loss_and_dx` return the sum of the
    cross-entropies of the counted targets (-100: not counted), and hold a block of the logits at a
    time: for a large vocabulary they are by far the largest array of a model.

    Parameters
    ----------
    in_features, classes : int
        Sizes of the last dimension of input and logits.
    bias, std, rng
        As for `Linear`.

    Examples
    --------
    >>> import numpy as np
    >>> head = Head(2, 4, std=0.0)
    >>> x, target = np.ones((3, 2), np.float32), np.array([0, 3, -100])
    >>> loss, backward = head.loss(x, target)
    >>> round(loss, 4), backward(1.0).shape             # 2 log 4
    (2.7726, (3, 2))
    """

    def __init__(self, in_features: int, classes: int, bias: bool = True, **options: Any) -> None:
        super().__init__(in_features, classes, bias, **options)

    def loss(self, x: Array, target: Array, *, need_dx: bool = True) -> tuple[float, once]:
        """Sum of the cross-entropies.

        Parameters
        ----------
        x : ndarray
            [..., in_features].
        target : ndarray of int
            [...], classes or -100.
        need_dx : bool, default True
            Whether the input needs a gradient.

        Returns
        -------
        loss : float
            In nats.
        backward : callable
            dout (a number) -> dx. It makes the logits again: where the cotangent is known
            beforehand, `loss_and_dx` saves that.
        """
        bias = None if self.bias is None else self.bias.data
        loss, lse = ops.linear_cross_entropy(
            x, self.weight.data, target, bias=bias, reduction="sum", return_lse=True
        )

        @once
        def backward(dout: float) -> Array | None:
            dx, _, _ = ops.linear_cross_entropy_backward(
                dout, x, self.weight.data, target, lse, bias=bias, reduction="sum",
                need_dx=need_dx, **self._gradients(),
            )  # fmt: skip
            return dx

        return loss, backward

    def loss_and_dx(
        self, x: Array, target: Array, dout: float = 1.0, *, need_dx: bool = True
    ) -> tuple[float, Array | Any]:
        """`loss` and its backward in one pass: three products of matrices instead of four.

        The gradients are added at once.

        Parameters
        ----------
        x, target, need_dx
            As for `loss`.
        dout : float, default 1.0
            The cotangent of the loss.

        Returns
        -------
        loss : float
            Not multiplied by `dout`.
        dx : ndarray or None
            [..., in_features].
        """
        bias = None if self.bias is None else self.bias.data
        loss, dx, _, _ = ops.linear_cross_entropy_with_grads(
            dout, x, self.weight.data, target, bias=bias, reduction="sum",
            need_dx=need_dx, **self._gradients(),
        )  # fmt: skip
        return loss, dx

    def _gradients(self) -> dict[str, Any]:
        weight, bias = self.weight, self.bias
        return {
            "dweight": weight.grad,
            "dbias": None if bias is None else bias.grad,
            "need_dweight": weight.requires_grad,
            "need_dbias": bias is not None and bias.requires_grad,
        }
