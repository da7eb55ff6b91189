"""Flat buffers: all trainable parameters in one array, all their gradients in another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._buffer import empty

if TYPE_CHECKING:
    from .module import Module

__all__ = ["FlatParameters", "flatten_"]


class FlatParameters:
    """The two flat buffers of a module; made by `flatten_`.

    Attributes
    ----------
    data, grad : ndarray
        1-D, of equal length: values and gradients of all trainable parameters. One call clips,
        one steps, one reduces, one saves.
    decay : int
        Weight decay applies to the first `decay` elements.
    """

    __slots__ = ("_data", "_grad", "decay")

    def __init__(self, data: npt.NDArray[Any], grad: npt.NDArray[Any], decay: int) -> None:
        self._data: npt.NDArray[Any] | None = data
        self._grad: npt.NDArray[Any] | None = grad
        self.decay = decay

    @property
    def data(self) -> npt.NDArray[Any]:
        return self._alive(self._data)

    @property
    def grad(self) -> npt.NDArray[Any]:
        return self._alive(self._grad)

    def release(self) -> None:
        """Let go of the buffers: the parameters have moved elsewhere."""
        self._data = self._grad = None

    @staticmethod
    def _alive(array: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if array is None:
            raise RuntimeError(
                "these flat buffers are gone: the parameters were flattened anew (by flatten_, "
                "freeze or unfreeze); take module.flat again, and make a new optimizer"
            )
        return array


def flatten_(module: Module) -> FlatParameters:
    """Move a module's trainable parameters and gradients into two flat buffers, in place.

    Each parameter's `data` and `grad` become views into them. Matrices come first, then vectors
    (biases, norms), each in definition order: weight decay is for the former alone, so it covers
    one leading stretch. Frozen parameters keep memory of their own. Values and accumulated
    gradients stay as they are.

    Parameters
    ----------
    module : Module
        Its `flat` attribute is set; buffers of an earlier call, here or below, are released.

    Returns
    -------
    FlatParameters
        `module.flat`.

    Raises
    ------
    TypeError
        When trainable parameters differ in dtype.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(2, 3)
    >>> flat = nn.flatten_(layer)
    >>> flat.data.size, flat.decay
    (9, 6)
    >>> flat.data[:] = 0
    >>> layer.weight.data.any()
    np.False_
    """
    for _, part in module.named_modules():
        if part.flat is not None:
            part.flat.release()
            part.flat = None

    parameters = list(module.parameters())
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    dtypes = {parameter.data.dtype for parameter in trainable} or {np.dtype(np.float32)}
    if len(dtypes) > 1:
        raise TypeError(f"parameters must share one dtype, got {sorted(map(str, dtypes))}")
    dtype = dtypes.pop()

    matrices = [parameter for parameter in trainable if parameter.data.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.data.ndim < 2]
    size = sum(parameter.data.size for parameter in trainable)
    data, grad = empty((size,), dtype), empty((size,), dtype)

    start = 0
    for parameter in matrices + vectors:
        shape = parameter.data.shape
        stop = start + math.prod(shape)
        values, gradient = data[start:stop].reshape(shape), grad[start:stop].reshape(shape)
        values[...], gradient[...] = parameter.data, parameter.grad
        parameter.data, parameter.grad = values, gradient
        start = stop
    for parameter in parameters:
        # A view would keep a whole former flat buffer alive.
        values = parameter.data
        if not parameter.requires_grad and getattr(values, "base", None) is not None:
            parameter.data = values.copy()

    module.flat = FlatParameters(data, grad, sum(parameter.data.size for parameter in matrices))
    return module.flat
